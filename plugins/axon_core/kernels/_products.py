"""Products with matrices of 16 bits and quantised ones in C++, where `axon-native` is installed."""

from __future__ import annotations

from functools import cache
from typing import Final

import mlx.core as mx

from axon_core.kernels._native import native

__all__ = ["is_known", "is_native", "native_product"]

#: Packings that it reads: modes with their bits and group sizes. Others are left to MLX.
_AFFINE_BITS: Final = (2, 3, 4, 5, 6, 8)
_AFFINE_GROUPS: Final = (32, 64, 128)


def native_product(
    x: mx.array,
    weight: mx.array,
    scales: mx.array | None = None,
    biases: mx.array | None = None,
    *,
    indices: mx.array | None = None,
    group_size: int = 0,
    bits: int = 0,
    mode: str = "",
) -> mx.array | None:
    """The product by the transpose of a matrix as it is stored, in float32.

    Args:
        x: (..., K); with `indices` (..., rows, K), whose leading axes broadcast with theirs.
        weight: (N, K), or packed (N, K * bits / 32); with `indices` one for each expert, (E, N, ...).
        scales: Those of a quantised matrix, (N, K / group size).
        biases: The same in the mode `affine`.
        indices: Expert of each row or group of rows.
        group_size: How many numbers share a scale.
        bits: Bits of a number.
        mode: How it is quantised; empty if it is not.

    Returns:
        (..., N); None where MLX has to compute it: on a GPU, without `axon-native`, for other packings, and where
        reference implementations are asked for.
    """
    module = native() if is_known(mode, bits, group_size) else None
    if module is None:
        return None
    if mode == "mxfp4":
        group_size, bits = 32, 4
    product: mx.array = module.product(x, weight, scales, biases, indices, group_size, bits, mode)
    return product


def is_native(mode: str = "", bits: int = 0, group_size: int = 0) -> bool:
    """Whether products with matrices that are stored so run in C++, here and now."""
    return native() is not None and is_known(mode, bits, group_size)


@cache
def is_known(mode: str, bits: int, group_size: int) -> bool:
    """Whether kernels are there for a packing; without a mode, for a matrix that is not quantised."""
    if mode == "affine":
        return bits in _AFFINE_BITS and group_size in _AFFINE_GROUPS
    return mode in ("", "mxfp4")
