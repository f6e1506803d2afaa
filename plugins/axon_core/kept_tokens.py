"""Keys and values of one more token, put into mlx-lm's caches in the fewest operations."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

from axon_core.kernels import native_kept

__all__ = ["CACHES", "keep_one"]

#: The caches that are known here: those without padding.
CACHES: Final = (KVCache, RotatingKVCache)


def keep_one(cache: Any, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array, int]:
    """Do what `update_and_fetch` does for one token, without slices of what is kept.

    Args:
        cache: One of `CACHES`, updated in place.
        keys: (B, G, 1, D), which `axon-native` has made.
        values: (B, G, 1, V).

    Returns:
        Keys (B, G, S, D) and values (B, G, S, V), and how many of their tokens are to be attended to, from the first
        on. Those of a window are in any order.
    """
    place = _place(cache, keys.dtype)
    if place is None:
        keys, values = cache.update_and_fetch(keys, values)
        return keys, values, keys.shape[2]
    cache.keys = native_kept(cache.keys, keys, place)
    cache.values = native_kept(cache.values, values, place)
    cache.offset += 1
    if type(cache) is RotatingKVCache:
        cache._idx = place + 1
    return cache.keys, cache.values, min(cache.offset, cache.keys.shape[2])


def _place(cache: Any, dtype: mx.Dtype) -> int | None:
    """Where the token goes; None where the cache has to grow or to be cut before, or holds another type."""
    kept = cache.keys
    if kept is None or not kept.dtype == cache.values.dtype == dtype:
        return None
    place: int = cache.offset
    if type(cache) is RotatingKVCache:
        full = kept.shape[2] == cache.max_size
        if kept.shape[2] > cache.max_size or (place >= kept.shape[2] and not full):
            return None
        place = cache.keep if cache._idx == cache.max_size else cache._idx
    return place if place < kept.shape[2] else None
