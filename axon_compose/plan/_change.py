"""A layer of a plan with its components replaced, and what it keeps then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from axon_compose.plan._plan import Branch, Layer, Member, Use
from axon_compose.registry import CacheSpec, Composite

__all__ = ["change_layer", "layer_cache"]

_T = TypeVar("_T")


def change_layer(layer: Layer, change: Callable[[Use], Use]) -> Layer:
    """The layer with every use changed, in the order of computation.

    Args:
        layer: The layer; what stays as it is stays the same object.
        change: Gives what stands in the place of a use.
    """

    def norm(old: Use | None) -> Use | None:
        return change(old) if old else None

    def member(old: Member) -> Member:
        return _with(old, pre=norm(old.pre), use=change(old.use), post=norm(old.post))

    def branch(old: Branch) -> Branch:
        connection, pre = norm(old.connection), norm(old.pre)
        members = _each(member, old.members)
        return _with(old, connection=connection, pre=pre, members=members, post=norm(old.post))

    return _with(layer, branches=_each(branch, layer.branches))


def layer_cache(layer: Layer) -> CacheSpec | None:
    """What a layer keeps: the cache of its component, those of several in one, or None."""
    caches = tuple(use.cache for use in layer.uses() if use.cache is not None)
    return Composite(caches) if len(caches) > 1 else next(iter(caches), None)


def _with(record: _T, **changes: Any) -> _T:
    """As `replace`, but what already is as it should be stays the same object: most parts need no change."""
    same = all(getattr(record, name) is value for name, value in changes.items())
    return record if same else replace(record, **changes)  # type: ignore[type-var]


def _each(change: Callable[[_T], _T], records: tuple[_T, ...]) -> tuple[_T, ...]:
    """What a function makes of each; the same tuple if it changes none."""
    changed = tuple(map(change, records))
    return records if all(new is old for new, old in zip(changed, records, strict=True)) else changed
