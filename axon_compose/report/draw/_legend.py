"""The legend: only what a picture holds, in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from axon_compose.plan import Plan
from axon_compose.report.draw._arcs import Arcs
from axon_compose.report.draw._box import GLYPH, glyph, kind_of_cache
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._family import FAMILIES, present
from axon_compose.report.draw._words import width

__all__ = ["legend"]

ROW: Final = 20.0
SIGN: Final = 20.0

_CACHES: Final = {
    "grows": "growing cache",
    "window": "cache of a window",
    "state": "constant state",
    "both": "keys, values and state",
}

_Sign = Callable[[Canvas, float, float], None]


def legend(canvas: Canvas, plan: Plan, arcs: Arcs, x: float, y: float, right: float) -> float:
    """Draw what the signs mean; returns where it ends."""
    entries = list(_entries(plan, arcs))
    widest = SIGN + max(width(words, 11) for _, words in entries) + 8
    columns = max(int((right - x) // widest), 1)
    rows = -(-len(entries) // columns)
    for number, (sign, words) in enumerate(entries):
        place, top = x + number // rows * (right - x) / columns, y + number % rows * ROW
        sign(canvas, place, top)
        canvas.words(place + SIGN, top + 10, words, "small")
    return y + rows * ROW


def _entries(plan: Plan, arcs: Arcs) -> Iterator[tuple[_Sign, str]]:
    for name in present(plan):
        yield _swatch(name), FAMILIES[name]
    caches = {kind_of_cache(use) for use in plan.uses() if use.cache is not None}
    for kind, words in _CACHES.items():
        if kind in caches:
            yield _cache(kind), words
    yield _bar, "share of parameters"
    for weights in sorted(arcs.kinds()):
        yield (_weights, "shared weights") if weights else (_values, "values read elsewhere")


def _swatch(name: str) -> _Sign:
    if name == "norm":
        return lambda canvas, x, y: canvas.rect(x, y + 3, 14, 6, name, round_=3)
    return lambda canvas, x, y: canvas.rect(x, y, 14, 12, name, round_=3)


def _cache(kind: str) -> _Sign:
    return lambda canvas, x, y: glyph(canvas, x + (14 - GLYPH) / 2, y + 0.5, kind)


def _bar(canvas: Canvas, x: float, y: float) -> None:
    canvas.rect(x, y + 5, 14, 3, "track", round_=1.5)
    canvas.rect(x, y + 5, 6, 3, "glyph-full", round_=1.5)


def _values(canvas: Canvas, x: float, y: float) -> None:
    canvas.line([(x, y + 6), (x + 14, y + 6)], "arc")


def _weights(canvas: Canvas, x: float, y: float) -> None:
    canvas.line([(x, y + 6), (x + 14, y + 6)], "arc dashed")
