"""Cache specs to mlx-lm's cache objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from axon_compose.registry import KV, CacheSpec, Composite

__all__ = ["make_cache", "make_caches"]


def make_caches(slots: Sequence[CacheSpec]) -> list[Any]:
    """Fresh caches, one for each slot."""
    return [make_cache(slot) for slot in slots]


def make_cache(spec: CacheSpec) -> Any:
    """A fresh cache of mlx-lm's own classes, so that batching, prompt caches and the server know it."""
    from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache  # costs a second: only when needed

    if isinstance(spec, KV):
        return KVCache() if spec.window is None else RotatingKVCache(max_size=spec.window)
    if isinstance(spec, Composite):
        return CacheList(*(make_cache(child) for child in spec.children))
    return ArraysCache(len(spec.arrays))
