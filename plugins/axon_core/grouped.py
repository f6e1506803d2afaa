"""Tokens put together by the expert that they go to, so that an expert's matrix meets many of them at once.

The CPU multiplies each token by the matrix of its expert, one by one, sorted or not. Here the tokens of an expert fill
blocks of b columns, the last one with tokens that count for nothing. With n pairs of a token and an expert, E experts
and c_e pairs of expert e, no more than n / b + E blocks are needed, whatever the c_e are; so many are made, and no
number has to come back from the device.

Measured on two shared x86-64 cores, in useful GFLOP/s of 8 experts of 512 to 1024 with 2 of them for each token:

    tokens                   64    128    512   2048
    one by one              1.7    2.0    1.8    1.7
    in blocks               2.2    3.0    3.7    4.2
    one by one, OpenBLAS    3.9    3.8    2.5    3.0
    in blocks, OpenBLAS    14.5   20.8   22.7   45.9
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import mlx.core as mx

from axon_compose.machine.blas import is_reference_blas

__all__ = ["Groups", "columns_multiplied", "group", "is_worth_grouping", "rows_multiplied"]

#: Pairs of a token and an expert, for each expert, from which on blocks are faster.
_LEAST: Final = 16
#: Columns of a block at most.
_MOST_COLUMNS: Final = 64


class Groups(NamedTuple):
    """Blocks of tokens.

    Attributes:
        tokens: (blocks, b) number of the token in each column.
        experts: (blocks,) expert of each block.
        places: (n,) column, counted through all blocks, of each pair in the order in which they came.
    """

    tokens: mx.array
    experts: mx.array
    places: mx.array


def is_worth_grouping(pairs: int, num_experts: int) -> bool:
    """Whether this number of pairs of a token and an expert is faster in blocks."""
    return pairs >= _LEAST * num_experts


def group(indices: mx.array, num_experts: int) -> Groups:
    """Deal the pairs of a token and an expert out to blocks of one expert each.

    Args:
        indices: (tokens, k) experts of each token.
        num_experts: E.
    """
    count, each = indices.size, indices.shape[-1]
    columns = _columns(count // num_experts)
    chosen = indices.flatten()
    order = mx.argsort(chosen)
    chosen = chosen[order]

    counts = (chosen[:, None] == mx.arange(num_experts)).sum(axis=0)
    needed = (counts + columns - 1) // columns
    ends = mx.cumsum(needed)
    first_column = columns * (ends - needed)
    first_pair = mx.cumsum(counts, inclusive=False)
    place = (first_column - first_pair)[chosen] + mx.arange(count)

    blocks = count // columns + num_experts
    tokens = mx.zeros((blocks * columns,), dtype=mx.uint32)
    tokens[place] = (order // each).astype(mx.uint32)
    # Blocks after the last one in use count for the last expert, to no effect.
    of_block = mx.minimum((ends <= mx.arange(blocks)[:, None]).sum(axis=1), num_experts - 1)
    places = mx.zeros((count,), dtype=mx.int32)
    places[order] = place.astype(mx.int32)
    return Groups(tokens.reshape(blocks, columns), of_block, places)


def _columns(pairs: int) -> int:
    """Columns of a block, a power of two, for this number of pairs of an expert on average."""
    # A larger block is faster but wastes more columns; the reference BLAS gains little beyond a few.
    least = 8 if is_reference_blas() else 16
    return max(least, min(_MOST_COLUMNS, 1 << (pairs // 4).bit_length() - 1))


def rows_multiplied(weight: mx.array, rows: mx.array, experts: mx.array) -> mx.array:
    """Multiply every block by the transpose of its expert's matrix: fastest where that is column-major.

    Args:
        weight: (E, output, input).
        rows: (blocks, b, input).
        experts: (blocks,).

    Returns:
        (blocks, b, output).
    """
    blocks = mx.arange(experts.shape[0])
    return mx.gather_mm(rows, weight.swapaxes(-1, -2), lhs_indices=blocks, rhs_indices=experts)


def columns_multiplied(weight: mx.array, columns: mx.array, experts: mx.array) -> mx.array:
    """The same for a row-major weight: the matrix from the left, so that neither factor is transposed.

    Args:
        weight: (E, output, input).
        columns: (blocks, input, b).
        experts: (blocks,), rising.

    Returns:
        (blocks, output, b).
    """
    return cast("mx.array", _from_the_left(weight, columns, experts))


@mx.custom_function
def _from_the_left(weight: mx.array, columns: mx.array, experts: mx.array) -> mx.array:
    return mx.gather_mm(weight, columns, lhs_indices=experts, rhs_indices=mx.arange(experts.shape[0]))


@_from_the_left.vjp
def _from_the_left_vjp(
    primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, _: Any
) -> tuple[mx.array, mx.array, mx.array]:
    """Blocks of an expert are contiguous, so its gradient is one product; MLX's own has a matrix for each block."""
    weight, columns, experts = primals
    b, each = columns.shape[-1], mx.arange(weight.shape[0])[:, None]
    bounds = mx.stack([(experts < each).sum(axis=1), (experts <= each).sum(axis=1)], axis=1) * b
    of_tokens = cotangent.swapaxes(0, 1).flatten(1), columns.swapaxes(-1, -2).flatten(0, 1)
    d_weight = mx.segmented_mm(*of_tokens, bounds.astype(mx.uint32))
    blocks = mx.arange(experts.shape[0])
    d_rows = mx.gather_mm(cotangent.swapaxes(-1, -2), weight, lhs_indices=blocks, rhs_indices=experts)
    return d_weight, d_rows.swapaxes(-1, -2), mx.zeros_like(experts)
