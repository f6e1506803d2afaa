"""Options without those that are as by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axon_compose.registry import ComponentSpec, check_options

__all__ = ["pruned"]


def pruned(spec: ComponentSpec, options: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a component that matter.

    Args:
        spec: The component.
        options: What validation made of them; validated again unless given.
        written: The options as written.

    Returns:
        As few of them as give the same options.
    """
    wanted = options if options is not None else check_options(spec, dict(written))[0]
    kept = {name: _without_nulls(value) for name, value in written.items()}
    if not _same(spec, kept, wanted):
        kept = dict(written)
    for name in list(kept):
        fewer = {key: value for key, value in kept.items() if key != name}
        if _same(spec, fewer, wanted):
            kept = fewer
    return kept


def _same(spec: ComponentSpec, written: dict[str, Any], wanted: Any) -> bool:
    options, faults = check_options(spec, written)
    return not faults and options == wanted


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
