"""Layers of a few tokens in one operation, as decoding has them: there operations cost more than what they compute."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_core.kernels import Stored, native_experts, native_heads, native_mlp, readable

__all__ = ["GATES", "experts_of_few", "heads_of_one", "mlp_of_few"]

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
    layers = _stored(mlp, "gate_proj", "up_proj", "down_proj") if readable(x) else None
    return None if layers is None else native_mlp(x, *layers, mlp.activation)


def experts_of_few(experts: nn.Module, x: mx.array, chosen: mx.array, weights: mx.array) -> mx.array | None:
    """The sum of what the chosen experts give, by their weights, each as `mlp_of_few`.

    Args:
        experts: Has these layers for each expert, and the activation of `GATES` as `activation.name`.
        x: (..., D).
        chosen: (..., top_k).
        weights: (..., top_k).

    Returns:
        (..., D).
    """
    layers = _stored(experts, "gate_proj", "up_proj", "down_proj") if readable(x) else None
    return None if layers is None else native_experts(x, chosen, weights, *layers, experts.activation.name)


def heads_of_one(attention: Any, x: mx.array, offset: int | mx.array) -> list[mx.array] | None:
    """The projected and rotated queries and keys, and the projected values, of one token of each sequence.

    Args:
        attention: Has `q_proj`, `k_proj`, `v_proj`, `num_heads`, `num_kv_heads` and perhaps `rope`.
        x: (B, 1, D).
        offset: Position of the token.

    Returns:
        (B, heads, 1, width of a head) each.
    """
    layers = _stored(attention, "q_proj", "k_proj", "v_proj") if x.shape[1] == 1 and readable(x) else None
    if layers is None:
        return None
    heads, rope = (attention.num_heads, attention.num_kv_heads), attention.get("rope")
    if rope is None:
        return native_heads(x, layers, heads, None, 0, traditional=False)
    turn = rope.turn(offset) if isinstance(offset, int) else None
    return turn and native_heads(x, layers, heads, turn, rope.dims // 2, traditional=rope.traditional)


def _stored(module: nn.Module, *names: str) -> tuple[Stored, Stored, Stored] | None:
    """What the kernels read of three layers; None if one of them is of another kind."""
    found: list[Stored] = []
    for name in names:
        read = getattr(module[name], "stored", None)
        stored = None if read is None else read()
        if stored is None:
            return None
        found.append(stored)
    first, second, third = found
    return first, second, third
