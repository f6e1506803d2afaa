"""Layers of a few tokens in one operation, as decoding has them: there operations cost more than what they compute."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_core.kernels import Stored, native_heads, native_mlp, readable

__all__ = ["GATES", "heads_of_one", "mlp_of_few"]

#: Activations of gated layers that may run so.
GATES: Final = ("silu", "gelu_tanh", "gelu_quick")


def mlp_of_few(mlp: nn.Module, x: mx.array) -> mx.array | None:
    """`down_proj(act(gate_proj(x)) * up_proj(x))` of `x` (..., D).

    Args:
        mlp: Has these layers, and an `activation` of `GATES`.
        x: (..., D).

    Returns:
        (..., D); None where it has to be computed step by step, here as below: on a GPU, without `axon-native`, for
        more tokens or other types, and where a layer is none of `axon_core.linear`, such as an adapter.
    """
    if not readable(x):
        return None
    gate, up, down = (_stored(mlp[name]) for name in ("gate_proj", "up_proj", "down_proj"))
    if gate is None or up is None or down is None:
        return None
    return native_mlp(x, gate, up, down, mlp.activation)


def heads_of_one(attention: Any, x: mx.array, offset: int | mx.array) -> list[mx.array] | None:
    """The projected and rotated queries and keys, and the projected values, of one token of each sequence.

    Args:
        attention: Has `q_proj`, `k_proj`, `v_proj`, `num_heads`, `num_kv_heads` and perhaps `rope`.
        x: (B, 1, D).
        offset: Position of the token.

    Returns:
        (B, heads, 1, width of a head) each.
    """
    if x.shape[1] != 1 or not readable(x):
        return None
    q, k, v = (_stored(attention[name]) for name in ("q_proj", "k_proj", "v_proj"))
    if q is None or k is None or v is None:
        return None
    heads, rope = (attention.num_heads, attention.num_kv_heads), attention.get("rope")
    if rope is None:
        return native_heads(x, (q, k, v), heads, None, 0, traditional=False)
    turn = rope.turn(offset) if isinstance(offset, int) else None
    return turn and native_heads(x, (q, k, v), heads, turn, rope.dims // 2, traditional=rope.traditional)


def _stored(layer: nn.Module) -> Stored | None:
    """What the kernels read of a layer."""
    read = getattr(layer, "stored", None)
    return None if read is None else read()
