"""Causal attention within a window, block by block: O(L · window) time and memory.

A block of queries needs only the keys from the first one's window to the last one's own. Each block is a call of
the usual fused attention on a slice, so every backend and every kind of key (grouped, quantised) is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from axon_core.specs._segments import BLOCK

__all__ = ["BLOCK", "Mask", "band", "banded_attention", "block_rows", "blockwise_attention", "by_block", "reached"]

Mask = mx.array | str | None

#: Scores that are held at once, of all rows and heads: 64 MiB in float32.
_SCORES: Final = 2**24
#: Queries in a block, at the least; fewer would read the keys too often.
_LEAST_ROWS: Final = 16


def banded_attention(
    queries: mx.array,
    keys: Any,
    values: Any,
    attend: Callable[[mx.array, Any, Any, Mask], mx.array],
    window: int | None,
    left_padding: mx.array | None = None,
) -> mx.array:
    """Attend from each token to the last `window` tokens, itself included.

    Args:
        queries: (B, H, L, head_dim).
        keys: (B, heads, S, head_dim) in temporal order, the last L of them those of the queries; or a tuple of
            arrays that are sliced alike along that axis.
        values: The same for values.
        attend: Attention of a block, `(queries, keys, values, mask)` to (B, H, block, value_dim).
        window: Tokens that a query sees, None for all.
        left_padding: (B,) index of each row's first real key; keys before it are not seen. A query on padding sees
            itself, so its output is finite; it is never read.

    Returns:
        (B, H, L, value_dim).
    """
    length = queries.shape[2]
    total = tree_flatten(keys)[0][1].shape[2]
    window = window or total

    def attend_block(block: mx.array, start: int, stop: int) -> mx.array:
        first, last = reached(start, stop, length, total, window)
        block_keys, block_values = _cut((keys, values), first, last)
        padding = None if left_padding is None else left_padding - first
        return attend(block, block_keys, block_values, _mask(stop - start, last - first, window, padding))

    return by_block(queries, attend_block)


def blockwise_attention(
    queries: mx.array,
    keys: Any,
    values: Any,
    attend: Callable[[mx.array, Any, Any, Mask, int], mx.array],
    mask: mx.array,
) -> mx.array:
    """Attend as an array mask says, a block of queries at a time, so that scores take O(block · S) memory.

    Args:
        queries: (B, H, L, head_dim).
        keys: (B, heads, S, head_dim), or a tuple of arrays.
        values: The same for values.
        attend: Attention of a block, `(queries, keys, values, mask, keys after the last query's)` to
            (B, H, block, value_dim).
        mask: Array that broadcasts to (B, H, L, S).

    Returns:
        (B, H, L, value_dim).
    """

    def attend_block(block: mx.array, start: int, stop: int) -> mx.array:
        one_row = mask.ndim < 2 or mask.shape[-2] == 1
        return attend(block, keys, values, mask if one_row else mask[..., start:stop, :], queries.shape[2] - stop)

    return by_block(queries, attend_block)


def by_block(queries: mx.array, attend_block: Callable[[mx.array, int, int], mx.array], rows: int = BLOCK) -> mx.array:
    """The outputs of `attend_block(block of queries, start, stop)`, one after the other."""
    length = queries.shape[2]
    outputs: list[mx.array] = []
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        block = queries[:, :, start:stop]
        if outputs:
            # Without this MLX evaluates all blocks side by side and keeps every block's scores alive.
            block = mx.depends(block, outputs[-1])
        outputs.append(attend_block(block, start, stop))
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)


def reached(start: int, stop: int, length: int, total: int, window: int) -> tuple[int, int]:
    """The first of `total` keys that the queries from `start` to `stop` of the `length` last see, and the end."""
    last = total - length + stop
    return max(0, last - (stop - start) - window + 1), last


def band(rows: int, columns: int, window: int, padding: mx.array | None = None) -> mx.array:
    """Which of `columns` keys each of the `rows` queries that are the last of them sees.

    Args:
        rows: Number of queries.
        columns: Number of keys.
        window: Tokens that a query sees, itself included.
        padding: (B,) index of each row's first real key; a query on padding sees itself.

    Returns:
        (rows, columns), or (B, 1, rows, columns) with padding.
    """
    query = mx.arange(columns - rows, columns)[:, None]
    key = mx.arange(columns)
    seen = (key <= query) & (key > query - window)
    if padding is None:
        return seen
    return seen & ((key >= padding[:, None, None, None]) | (key == query))


def block_rows(batch: int, heads: int, total: int) -> int:
    """Queries of a block that sees `total` keys, as many as memory for scores allows."""
    return max(_LEAST_ROWS, _SCORES // (batch * heads * total))


def _cut(tree: Any, first: int, last: int) -> Any:
    return tree_map(lambda array: array[:, :, first:last], tree)


def _mask(rows: int, columns: int, window: int, padding: mx.array | None) -> Mask:
    """The band, or the name of what is the same."""
    if padding is None and columns <= window:
        return None if rows == 1 else "causal"
    return band(rows, columns, window, padding)
