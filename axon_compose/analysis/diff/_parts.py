"""Two components that stand at the same place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from axon_compose.analysis.diff._form import Places, frozen, plain_options
from axon_compose.analysis.diff._gather import Atom
from axon_compose.analysis.diff._words import short_type, value_text
from axon_compose.plan import Use

__all__ = ["PlaceMap", "part_atoms", "read_atoms", "shape_atoms"]

#: Place `(layer, branch, member)` of the first model to that of the second one.
PlaceMap = Mapping[tuple[int, int, int], tuple[int, int, int]]


def part_atoms(a: Use | None, b: Use | None, subject: str, role: str = "") -> Iterator[Atom]:
    """How the types and options of two components differ, either of which may be missing."""
    kind = "norm" if role else "option"
    if a is None or b is None:
        if b is not None:
            yield Atom("norm" if role else "added", subject, f"added ({short_type(b)})", role)
        if a is not None:
            yield Atom("norm" if role else "removed", subject, f"removed ({short_type(a)})", role)
        return
    if a.type != b.type:
        yield Atom(
            "norm" if role else "replaced", subject, f"{short_type(a)} → {short_type(b)}", role, None, a.type, b.type
        )
        return
    for option, before, after in _unlike(plain_options(a), plain_options(b)):
        words = f"{option} {value_text(before)} → {value_text(after)}"
        yield Atom(kind, subject, words, role, option, before, after)


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names of the options that differ, with both values."""
    for key in dict.fromkeys((*a, *b)):
        before, after = a.get(key), b.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _unlike(before, after, f"{above}{key}.")
        elif frozen(before) != frozen(after):
            yield f"{above}{key}", before, after


def shape_atoms(a: Use, b: Use) -> Iterator[Atom]:
    """Sizes that differ though all options are the same: the component looks at other dims."""
    if dict(a.params) != dict(b.params):
        names = [name for name in dict.fromkeys((*a.params, *b.params)) if a.params.get(name) != b.params.get(name)]
        yield Atom("size", a.name, f"has different shapes: {', '.join(names[:3])}")
    elif a.cache != b.cache or a.window != b.window:
        yield Atom("size", a.name, "has a different cache")


def read_atoms(a: Use, b: Use, places: tuple[Places, Places], across: PlaceMap) -> Iterator[Atom]:
    """Values that come from other layers than before."""
    before, after = places[0].reads(a), places[1].reads(b)
    for value in dict.fromkeys((*before, *after)):
        old, new = before.get(value), after.get(value)
        mapped = across.get(old) if isinstance(old, tuple) else old
        if mapped != new or (old is None) != (new is None):
            words = f"reads {value} of {_source(old)} → {_source(new)}"
            yield Atom("wiring", a.name, words, "", None, _source(old), _source(new))


def _source(place: tuple[int, int, int] | str | None) -> str:
    if place is None:
        return "nothing"
    return f"layer {place[0]}" if isinstance(place, tuple) else place
