"""Norms of a few numbers, as a step of decoding has them: on the CPU MLX makes nine to twelve operations of each.

Here they take one with `axon-native`, else three or four: what is between two sums is one compiled operation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import mlx.core as mx

from axon_core.cpu import fast
from axon_core.kernels import native_layer_norm, native_norm

__all__ = ["layer_norm", "rms_norm"]

#: Numbers up to which the fewest operations win on the CPU; above, those that sweep over memory most simply.
_FEW: Final = 8192

Scalars = tuple[mx.array, mx.array]


def rms_norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    """`mx.fast.rms_norm` in the fewest operations, `x / sqrt(mean(x²) + eps) * weight`.

    Args:
        x: (..., D).
        weight: (D,), or None.
        eps: Added to the mean square.

    Returns:
        (..., D), in the common type.
    """
    if weight is not None:
        if (y := native_norm(x, weight, eps)) is not None:
            return y
        if x.size < _FEW and _is_float32(x, weight):
            return _divided(x, mx.square(x).sum(axis=-1, keepdims=True), _scalars(x.shape[-1], eps), weight)
    return mx.fast.rms_norm(x, weight, eps)


def layer_norm(x: mx.array, weight: mx.array | None, bias: mx.array | None, eps: float) -> mx.array:
    """`mx.fast.layer_norm` in the fewest operations, `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`.

    Args:
        x: (..., D).
        weight: (D,), or None.
        bias: The same.
        eps: Added to the variance.

    Returns:
        (..., D), in the common type.
    """
    if x.size < _FEW and weight is not None:
        if (y := native_layer_norm(x, weight, bias, eps)) is not None:
            return y
        if _is_float32(x, weight):
            scalars = _scalars(x.shape[-1], eps)
            centred, squares = _centred(x, x.sum(axis=-1, keepdims=True), scalars)
            y = _divided(centred, squares.sum(axis=-1, keepdims=True), scalars, weight)
            return y if bias is None else y + bias
    return mx.fast.layer_norm(x, weight, bias, eps)


def _is_float32(x: mx.array, weight: mx.array) -> bool:
    return x.dtype == mx.float32 and weight.dtype == mx.float32 and fast()


@lru_cache(maxsize=64)
def _scalars(dims: int, eps: float) -> Scalars:
    """As arrays, for numbers would make a kernel of their own."""
    return mx.array(1 / dims), mx.array(eps)


@mx.compile
def _divided(x: mx.array, squares: mx.array, scalars: Scalars, weight: mx.array) -> mx.array:
    return x * mx.rsqrt(squares * scalars[0] + scalars[1]) * weight


@mx.compile
def _centred(x: mx.array, total: mx.array, scalars: Scalars) -> tuple[mx.array, mx.array]:
    centred = x - total * scalars[0]
    return centred, mx.square(centred)
