"""What layers do between their products, in C++ where `axon-native` is installed: a pass for each, and its gradient."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx

from axon_core.kernels._native import TYPES, native

__all__ = [
    "GATES",
    "is_native_pass",
    "native_activated",
    "native_attention",
    "native_causal_attention",
    "native_convolution",
    "native_gated",
    "native_layer_norm",
    "native_norm",
    "native_rotation",
]

#: Numbers up to which passes take any type of floats, and those that have no gradients of their own are taken at all.
#: For more, MLX's operations cost little beside what they compute; of float32 a pass over memory still is several.
_FEW: Final = 8192
#: Queries from which on all keys are arranged for products with many of them.
_QUERIES: Final = 32
#: Activations that gates may have.
GATES: Final = ("silu", "gelu_tanh", "gelu_quick")


def native_norm(x: mx.array, weight: mx.array, eps: float, offset: float = 0.0) -> mx.array | None:
    """`x / sqrt(mean(x²) + eps) * (offset + weight)` of `x` (..., D) and `weight` (D,).

    Returns:
        (..., D) in the common type, in float32 with an offset; None where MLX has to compute it, here as below: unless
        `is_native_pass`.
    """
    module = _module(x) or (_module_of_many(x) if weight.dtype == mx.float32 else None)
    return None if module is None else module.rms_norm(x, weight, eps, offset)


def native_layer_norm(x: mx.array, weight: mx.array, bias: mx.array | None, eps: float) -> mx.array | None:
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` of `x` (..., D) and `weight` and `bias` (D,)."""
    module = _module(x)
    return None if module is None else module.layer_norm(x, weight, bias, eps)


def native_gated(activation: str, gate: mx.array, x: mx.array) -> mx.array | None:
    """`act(gate) * x` of equal shapes; None as above, and for other activations."""
    module = _module(gate) or _module_of_many(gate)
    if module is None or activation not in GATES or gate.shape != x.shape or gate.dtype != x.dtype:
        return None
    return module.gated(gate, x, activation)


def native_activated(activation: str, x: mx.array) -> mx.array | None:
    """`act(x)` of any shape; None as above, for other types than float32, and for other activations."""
    module = _module_of_many(x)
    return None if module is None or activation not in GATES or not x.ndim else module.activated(x, activation)


def native_convolution(
    x: mx.array, state: mx.array, weight: mx.array, bias: mx.array | None, dilation: int
) -> mx.array | None:
    """Each channel of `x` (B, L, E) convolved with its taps `weight` (E, K), the last of which meets the token itself.

    Before the first token are the inputs `state` (B, (K - 1) * dilation, E); `bias` (E,) is added.

    Returns:
        (B, L, E); None as above, and for other types than float32.
    """
    module = _module_of_many(x)
    given = (state, weight) if bias is None else (state, weight, bias)
    if module is None or any(array.dtype != mx.float32 for array in given):
        return None
    return module.causal_convolution(x, state, weight, bias, dilation)


def native_rotation(
    x: mx.array, cosines: mx.array, sines: mx.array, pairs: int, *, traditional: bool
) -> mx.array | None:
    """`x` (..., L, D) times cosines, plus the partners of its numbers times signed sines; both are (L, D).

    Partners are the two halves of the first `2 * pairs` numbers, or neighbours if `traditional`; each of those that
    follow is its own.
    """
    module = _module(x) or _module_of_many(x)
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


def native_causal_attention(
    queries: mx.array, keys: Any, values: Any, scale: float, window: int | None
) -> mx.array | None:
    """The attention of L tokens (B, H, L, D) to all S keys (B, G, S, D), the last L of them their own, and values.

    A token sees itself and what is before it, `window` tokens in all.

    Returns:
        (B, H, L, V); None as above, for a few queries, for other types than float32, and for quantised keys.
    """
    if queries.shape[2] < _QUERIES or not isinstance(keys, mx.array):
        return None
    module = _module_of_many(queries)
    if module is None or not keys.dtype == values.dtype == mx.float32:
        return None
    return module.causal_attention(queries, keys, values, scale, window)


def is_native_pass(x: mx.array) -> bool:
    """Whether passes over these numbers run in C++: a few numbers on the CPU, unless the reference is asked for."""
    return _module(x) is not None


def _module_of_many(x: mx.array) -> Any:
    """`axon-native`, if it is there and has passes over any number of these, with gradients of their own."""
    return native() if x.dtype == mx.float32 else None


def _module(x: mx.array) -> Any:
    """`axon-native`, if it is there and takes these numbers."""
    module = native()
    return module if module is not None and x.size <= _FEW and x.dtype in TYPES else None
