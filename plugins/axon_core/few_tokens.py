"""Layers of a few tokens in one operation, as decoding has them: there operations cost more than what they compute."""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_core.kernels import Stored, native_experts, native_heads, native_mlp, readable

__all__ = ["experts_of_few", "heads_of_one", "inherits", "mlp_of_few"]


def mlp_of_few(mlp: Any, x: mx.array) -> mx.array | None:
    """`down_proj(act(gate_proj(x)) * up_proj(x))` of `x` (..., D).

    Args:
        mlp: Has these layers and an `activation`, and `is_plain` where it computes nothing else.
        x: (..., D).

    Returns:
        (..., D); None where it has to be computed step by step, here as below: on a GPU, without `axon-native`, for
        more tokens or other types, where there is more to compute, and where a layer is none of `axon_core.linear`,
        such as an adapter.
    """
    layers = _stored(mlp, "gate_proj", "up_proj", "down_proj") if readable(x) and mlp.is_plain() else None
    return None if layers is None else native_mlp(x, *layers, mlp.activation)


def experts_of_few(experts: nn.Module, x: mx.array, chosen: mx.array, weights: mx.array) -> mx.array | None:
    """The sum of what the chosen experts give, by their weights, each as `mlp_of_few`.

    Args:
        experts: Has these layers for each expert, the activation as `activation.name`, and `is_plain` where it
            computes nothing else.
        x: (..., D).
        chosen: (..., top_k).
        weights: (..., top_k).

    Returns:
        (..., D).
    """
    is_plain = getattr(experts, "is_plain", None) if readable(x) else None
    layers = _stored(experts, "gate_proj", "up_proj", "down_proj") if is_plain is not None and is_plain() else None
    return None if layers is None else native_experts(x, chosen, weights, *layers, experts.activation.name)


def heads_of_one(attention: Any, x: mx.array, offset: int | mx.array) -> list[mx.array] | None:
    """The projected and rotated queries and keys, and the projected values, of one token of each sequence.

    Args:
        attention: Has `q_proj`, `k_proj`, `v_proj`, `num_heads`, `num_kv_heads` and perhaps `rope`, and `is_plain`
            where it computes nothing else before the scores.
        x: (B, 1, D).
        offset: Position of the token.

    Returns:
        (B, heads, 1, width of a head) each.
    """
    if not readable(x) or x.shape[1] != 1 or not attention.is_plain():
        return None
    layers = _stored(attention, "q_proj", "k_proj", "v_proj")
    if layers is None:
        return None
    heads, rope = (attention.num_heads, attention.num_kv_heads), attention.get("rope")
    if rope is None:
        return native_heads(x, layers, heads, None, 0, traditional=False)
    turn = rope.turn(offset) if isinstance(offset, int) else None
    return turn and native_heads(x, layers, heads, turn, rope.dims // 2, traditional=rope.traditional)


def inherits(layer: Any, base: Any, *names: str) -> bool:
    """Whether a layer takes these steps as its `base` does, so that they may be taken together."""
    made: Any = type(layer)  # which mypy takes for no key
    return _inherits(made, base, names)


@cache
def _inherits(made: Any, base: Any, names: tuple[str, ...]) -> bool:
    return all(getattr(made, name) is getattr(base, name) for name in names)


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
