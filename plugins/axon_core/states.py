"""How recurrent layers read and write their cache."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

__all__ = ["read_states", "write_states"]


def read_states(
    cache: Any, mask: mx.array | None, length: int, count: int = 2
) -> tuple[list[mx.array | None], mx.array | None]:
    """What a cache holds, and the mask that goes with it.

    Args:
        cache: None, mlx-lm's `ArraysCache(count)`, or a list of `count` arrays.
        mask: False on padding, (B, L); asked of the cache unless given.
        length: Tokens of this call, L.
        count: Number of arrays.

    Returns:
        The arrays, None where nothing has been seen yet; and the mask.
    """
    if mask is None and hasattr(cache, "make_mask"):
        mask = cache.make_mask(length)
    return [None] * count if cache is None else [cache[i] for i in range(count)], mask


def write_states(cache: Any, states: list[mx.array], length: int) -> Any:
    """Store what the next call has to know, and move the cache on by `length` tokens.

    Returns:
        The cache; without one, or with a list, which stays as it is, a new list of the arrays.
    """
    if cache is None or isinstance(cache, list | tuple):
        return states
    for i, state in enumerate(states):
        cache[i] = state
    if hasattr(cache, "advance"):
        cache.advance(length)
    return cache
