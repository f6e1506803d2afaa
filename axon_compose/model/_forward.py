"""What is made once per forward pass and shared by all layers: masks and the position of the first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from axon_compose.plan import MaskGroup

__all__ = ["make_mask", "position"]

Caches = Sequence[Any] | None


def at(caches: Caches, slot: tuple[int, ...] | None) -> Any:
    """The cache at a slot, or None without caches."""
    if caches is None or slot is None:
        return None
    cache: Any = caches
    for index in slot:
        cache = cache[index]
        if cache is None:
            return None
    return cache


def position(caches: Caches, slot: tuple[int, ...] | None) -> int | mx.array:
    """Number of tokens before this pass: an int, or (B,) in a batch of unequal rows.

    An array is copied, since caches may advance theirs in place while the pass still needs the old value.
    """
    cache = at(caches, slot)
    if cache is None:
        return 0
    offset = cache.offset
    return mx.array(offset) if isinstance(offset, mx.array) else int(offset)


def make_mask(group: MaskGroup, caches: Caches, length: int) -> Any:
    """The mask of one group for `length` new tokens, in mlx-lm's forms: None, "causal" or a boolean array."""
    cache = at(caches, group.slot)
    if group.kind == "state":
        return cache.make_mask(length) if cache is not None else None
    if group.form == "banded" and length > 1:
        return None
    if cache is not None:
        return cache.make_mask(length, window_size=group.window, return_array=False)
    if length == 1:
        return None
    return "causal" if group.window is None else _window_mask(length, group.window)


def _window_mask(length: int, window: int) -> mx.array:
    """(L, L), True where a query sees a key: the last `window` tokens, itself included."""
    query, key = mx.arange(length)[:, None], mx.arange(length)[None]
    return (key <= query) & (key > query - window)
