"""What a step of one token does between its products, in C++ where `axon-native` is installed: a pass for each."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx

from axon_core.kernels._native import TYPES, native

__all__ = [
    "GATES",
    "is_native_pass",
    "native_attention",
    "native_gated",
    "native_layer_norm",
    "native_norm",
    "native_rotation",
]

#: Numbers up to which it is taken: for more, MLX's operations cost little beside what they compute, and gradients are
#: made of theirs.
_FEW: Final = 8192
#: Activations that gates may have.
GATES: Final = ("silu", "gelu_tanh", "gelu_quick")


def native_norm(x: mx.array, weight: mx.array, eps: float, offset: float = 0.0) -> mx.array | None:
    """`x / sqrt(mean(x²) + eps) * (offset + weight)` of `x` (..., D) and `weight` (D,).

    Returns:
        (..., D) in the common type, in float32 with an offset; None where MLX has to compute it, here as below: unless
        `is_native_pass`.
    """
    module = _module(x)
    return None if module is None else module.rms_norm(x, weight, eps, offset)


def native_layer_norm(x: mx.array, weight: mx.array, bias: mx.array | None, eps: float) -> mx.array | None:
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` of `x` (..., D) and `weight` and `bias` (D,)."""
    module = _module(x)
    return None if module is None else module.layer_norm(x, weight, bias, eps)


def native_gated(activation: str, gate: mx.array, x: mx.array) -> mx.array | None:
    """`act(gate) * x` of equal shapes; None as above, and for other activations."""
    module = _module(gate)
    if module is None or activation not in GATES or gate.shape != x.shape or gate.dtype != x.dtype:
        return None
    return module.gated(gate, x, activation)


def native_rotation(
    x: mx.array, cosines: mx.array, sines: mx.array, pairs: int, *, traditional: bool
) -> mx.array | None:
    """`x` (..., L, D) times cosines, plus the partners of its numbers times signed sines; both are (L, D).

    Partners are the two halves of the first `2 * pairs` numbers, or neighbours if `traditional`; each of those that
    follow is its own.
    """
    module = _module(x)
    return None if module is None else module.rotation(x, cosines, sines, pairs, traditional)


def native_attention(
    queries: mx.array, keys: Any, values: Any, scale: float, sinks: mx.array | None
) -> mx.array | None:
    """The attention of one token (B, H, 1, D) to all keys (B, G, S, D), and their values (B, G, S, V).

    Returns:
        (B, H, 1, V); None as above, for more queries, and for quantised keys and values.
    """
    if queries.shape[2] != 1 or not isinstance(keys, mx.array):
        return None
    module = _module(queries)
    return None if module is None else module.attention_of_one(queries, keys, values, scale, sinks)


def is_native_pass(x: mx.array) -> bool:
    """Whether passes over these numbers run in C++: a few numbers on the CPU, unless the reference is asked for."""
    return _module(x) is not None


def _module(x: mx.array) -> Any:
    """`axon-native`, if it is there and takes these numbers."""
    module = native()
    return module if module is not None and x.size <= _FEW and x.dtype in TYPES else None
