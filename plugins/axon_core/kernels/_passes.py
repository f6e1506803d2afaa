"""What a step of one token does between its products, in C++ where `axon-native` is installed: a pass for each."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx

from axon_core.kernels._native import native

__all__ = ["is_native_pass", "native_attention", "native_norm", "native_rotation"]

#: Numbers up to which it is taken: for more, MLX's operations cost little beside what they compute, and gradients are
#: made of theirs.
_FEW: Final = 8192
_TYPES: Final = (mx.float32, mx.bfloat16, mx.float16)


def native_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array | None:
    """`x / sqrt(mean(x²) + eps) * weight` of `x` (..., D) and `weight` (D,).

    Returns:
        (..., D) in the type of `x`; None where MLX has to compute it, here as below: where `is_native_pass` says so.
    """
    return _native().rms_norm(x, weight, eps) if is_native_pass(x) else None


def native_rotation(
    x: mx.array, cosines: mx.array, sines: mx.array, pairs: int, *, traditional: bool
) -> mx.array | None:
    """`x` (..., L, D) times cosines, plus the partners of its numbers times signed sines; both are (L, D).

    Partners are the two halves of the first `2 * pairs` numbers, or neighbours if `traditional`; each of those that
    follow is its own.
    """
    return _native().rotation(x, cosines, sines, pairs, traditional) if is_native_pass(x) else None


def native_attention(
    queries: mx.array, keys: Any, values: Any, scale: float, sinks: mx.array | None
) -> mx.array | None:
    """The attention of one token (B, H, 1, D) to all keys (B, G, S, D), and their values (B, G, S, V).

    Returns:
        (B, H, 1, V); None as above, for more queries, and for quantised keys and values.
    """
    if queries.shape[2] != 1 or not isinstance(keys, mx.array) or not is_native_pass(queries):
        return None
    return _native().attention_of_one(queries, keys, values, scale, sinks)


def is_native_pass(x: mx.array) -> bool:
    """Whether passes over these numbers run in C++: a few numbers on the CPU, unless the reference is asked for."""
    return x.size <= _FEW and x.dtype in _TYPES and native() is not None


def _native() -> Any:
    """`axon-native`, which is there."""
    return native()
