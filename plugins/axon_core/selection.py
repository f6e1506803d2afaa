"""The choice of an indexer: the best of many scores, the same ones however a prompt is cut and a batch is padded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from axon_core.window import Mask, block_rows, by_block

__all__ = ["best", "choose", "places", "positions", "store", "visible"]


def choose(
    queries: mx.array, keys: mx.array, weights: mx.array, seen: Callable[[int, int], mx.array | None], count: int
) -> mx.array:
    """Which keys each query attends to: those with the largest sums over heads of `weight * relu(query · key)`.

    Args:
        queries: (B, H, L, width).
        keys: (B, 1, N, width), with N > count.
        weights: (B, L, H) weight of each head.
        seen: Which keys the queries from one to another may see, `seen(start, stop)`: booleans (..., stop - start, N),
            None for all.
        count: Number of keys to choose.

    Returns:
        Booleans (B, 1, L, N), with at most `count` True in a row.
    """
    weights = weights.swapaxes(1, 2)[..., None]
    transposed = keys.astype(mx.float32).swapaxes(-1, -2)

    def choose_block(block: mx.array, start: int, stop: int) -> mx.array:
        scores = (mx.maximum(block @ transposed, 0) * weights[:, :, start:stop]).sum(axis=1, keepdims=True)
        allowed = seen(start, stop)
        return best(scores if allowed is None else mx.where(allowed, scores, -mx.inf), count)

    rows = block_rows(queries.shape[0], queries.shape[1], keys.shape[2])
    return by_block(queries.astype(mx.float32), choose_block, rows)


def best(scores: mx.array, count: int) -> mx.array:
    """The `count` largest of each row as booleans; of equal ones the first, and of -inf none.

    Args:
        scores: (..., N) with N > count.
        count: Number of entries to choose.

    Returns:
        (..., N), with at most `count` True in a row.
    """
    cut = scores.shape[-1] - count
    least = mx.partition(scores, cut, axis=-1)[..., cut : cut + 1]
    above, equal = scores > least, scores == least
    spare = count - above.sum(axis=-1, keepdims=True)
    first = mx.cumsum(equal.astype(mx.int32), axis=-1) <= spare
    return (above | (equal & first)) & (scores > -mx.inf)


def places(chosen: mx.array, count: int) -> mx.array:
    """Indices (..., count) of what is True in `chosen` (..., N), then of what is not."""
    return mx.argpartition(1 - chosen.astype(mx.int32), count - 1, axis=-1)[..., :count]


def positions(index: mx.array, left_padding: mx.array | None) -> mx.array:
    """Where in each sequence the keys of these indices are, (B or 1, count); negative in padding.

    Args:
        index: Places in the cache, (count,).
        left_padding: (B,) places before each sequence's first token, None without.
    """
    return index[None] if left_padding is None else index - left_padding[:, None]


def visible(mask: Mask, start: int, stop: int, length: int, total: int) -> mx.array | None:
    """Which of `total` keys the queries from `start` to `stop` see: (..., stop - start, total), None for all.

    Args:
        mask: None or "causal" for the causal mask, or a boolean array that broadcasts to (B, H, L, S).
        start: First query of the `length` last tokens.
        stop: The one after the last.
        length: Number of queries.
        total: Number of keys.
    """
    if isinstance(mask, mx.array):
        return mx.broadcast_to(mask, mx.broadcast_shapes(mask.shape, (length, total)))[..., start:stop, :]
    if length == 1:
        return None
    at = total - length
    return mx.arange(at + start, at + stop)[:, None] >= mx.arange(total)


def store(cache: Any, keys: mx.array) -> tuple[mx.array, list[mx.array]]:
    """Put keys (B, 1, L, width) into a cache whose values have no width.

    Returns:
        The keys of all tokens (B, 1, S, width), and what has to be computed with the output of the layer: keys that
        nobody reads yet would otherwise pile up as a graph.
    """
    if cache is None:
        return keys, []
    keys, values = cache.update_and_fetch(keys, mx.zeros((*keys.shape[:3], 0), dtype=keys.dtype))
    return keys, [keys, values]
