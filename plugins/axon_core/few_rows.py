"""Products of a few rows with OpenBLAS, in pieces that it multiplies without copying the matrix.

A product is worth a copy of its factors in the order in which a kernel reads them, unless one has few rows, as in
decoding: then the copy is most of the work. OpenBLAS for x86 has kernels that read the factors as they lie, and takes
them for small products alone. So a large matrix is multiplied as several small ones, in one operation of MLX.

Measured on one x86-64 core with AVX-512, in microseconds:

=============================  ====  ====  =====  =====
matrix, and rows                 1     2      8     16
=============================  ====  ====  =====  =====
1536 x 384, as a whole         185   153    212    321
1536 x 384, in pieces           64    51    112    215
8192 x 384, as a whole        2412  2098   2576   3294
8192 x 384, in pieces         1340  1232   1916   2723
=============================  ====  ====  =====  =====

With more threads OpenBLAS shares the copy out among them, and from four on that is as fast. Where it has no such
kernels (AVX2), pieces take as long as the whole.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import mlx.core as mx

from axon_compose.machine.blas import copies_for_few_rows
from axon_core.cpu import fast

__all__ = ["few_rows_product"]

#: Rows up to which pieces are faster.
_ROWS: Final = 16
#: Numbers of a result, and products of two numbers, up to which OpenBLAS takes the kernels that copy nothing.
_RESULTS: Final = 1200
_PRODUCTS: Final = 1_000_000
#: Least rows of the matrix in a piece.
_LEAST: Final = 16


def few_rows_product(x: mx.array, weight: mx.array) -> mx.array | None:
    """`x @ weight.T` where that is faster in pieces.

    Args:
        x: (..., K).
        weight: (N, K).

    Returns:
        (..., N); None for many rows, other types, small matrices, and where the BLAS is not OpenBLAS on x86.
    """
    outputs, inputs = weight.shape
    rows = x.size // inputs
    if not 0 < rows <= _ROWS:
        return None
    pieces, rest = _pieces(rows, outputs, inputs)
    if pieces == 0 or not x.dtype == weight.dtype == mx.float32 or not (fast() and copies_for_few_rows()):
        return None
    if not rest:
        return _in_pieces(x, weight, pieces)
    first, last = mx.split(weight, [outputs - rest])
    return mx.concatenate([_in_pieces(x, first, pieces), x @ last.T], axis=-1)


def _in_pieces(x: mx.array, weight: mx.array, pieces: int) -> mx.array:
    y = x.reshape(1, -1, x.shape[-1]) @ mx.unflatten(weight, 0, (pieces, -1)).swapaxes(-1, -2)
    return y.swapaxes(0, 1).reshape(*x.shape[:-1], -1)


@cache
def _pieces(rows: int, outputs: int, inputs: int) -> tuple[int, int]:
    """Of how many pieces a matrix is made, none if it is small enough, and how many rows are left over."""
    most = min(_RESULTS // rows, _PRODUCTS // (rows * inputs))
    if outputs <= most or most < _LEAST:
        return 0, 0
    least = -(-outputs // most)
    even = (number for number in range(least, 2 * least) if outputs % number == 0)
    if number := next(even, None):
        return number, 0
    return outputs // most, outputs % most
