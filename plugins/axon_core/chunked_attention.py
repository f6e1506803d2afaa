"""Causal attention within chunks: a token sees those of its own chunk, which begins at a multiple of its size.

Llama 4 has it in the layers with rotary positions. Keys stay in a cache of the whole context, and each chunk of queries
is attended with a slice of them, so time is linear in the length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from axon_core.window import Mask

__all__ = ["chunked_attention"]

#: Queries, (keys, values, left padding or None) and a mask to the output.
Attend = Callable[[mx.array, tuple[Any, Any, mx.array | None], Mask], mx.array]


def chunked_attention(
    queries: mx.array,
    kv: tuple[Any, Any, mx.array | None],
    mask: Mask,
    attend: Attend,
    chunk: int,
    offset: int | mx.array,
) -> mx.array:
    """Attend from each token to those of its chunk, itself included, that are not after it.

    Args:
        queries: (B, H, L, head_dim).
        kv: Keys and values (B, heads, S, width), or tuples of arrays, and the left padding (B,) or None. The last L
            keys are those of the queries.
        mask: None or "causal", or booleans that broadcast to (B, H, L, S) and hold besides.
        attend: Attention without chunks.
        chunk: Tokens of a chunk.
        offset: Position of the first query, int or (B,).

    Returns:
        (B, H, L, value_dim).
    """
    keys, values, left_padding = kv
    length, total = queries.shape[2], tree_flatten(keys)[0][1].shape[2]
    if isinstance(offset, int) and left_padding is None and not isinstance(mask, mx.array):
        return _slices(queries, keys, values, attend, chunk, offset, total)
    positions = mx.array(offset).reshape(-1, 1) + mx.arange(length - total, length)
    seen = (positions[:, None, -length:, None] // chunk) == (positions[:, None, None] // chunk)
    if not isinstance(mask, mx.array):
        mask = mx.arange(total - length, total)[:, None] >= mx.arange(total)
        if left_padding is not None:
            mask = mask & (mx.arange(total) >= left_padding[:, None, None, None])
    return attend(queries, (keys, values, None), mask & seen)


def _slices(queries: mx.array, keys: Any, values: Any, attend: Attend, chunk: int, offset: int, total: int) -> mx.array:
    """One call for each chunk that the queries are in, with the keys of that chunk."""
    length, start = queries.shape[2], 0
    outputs = []
    while start < length:
        before = (offset + start) % chunk
        stop = min(length, start + chunk - before)
        low, high = max(0, total - length + start - before), total - length + stop
        own_keys, own_values = _cut((keys, values), low, high)
        mask = None if stop - start == 1 else "causal"
        outputs.append(attend(queries[:, :, start:stop], (own_keys, own_values, None), mask))
        start = stop
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)


def _cut(tree: Any, low: int, high: int) -> Any:
    return tree_map(lambda array: array[:, :, low:high], tree)
