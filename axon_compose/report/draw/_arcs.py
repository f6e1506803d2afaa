"""Arcs at the right of the stack: weights and values that one place shares with others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from axon_compose.report.draw._canvas import Canvas

__all__ = ["LANE", "Anchor", "Arcs"]

LANE: Final = 11.0
Anchor = tuple[float, float]


@dataclass
class Arc:
    """One source with everything that shares it."""

    source: Anchor
    weights: bool
    readers: list[Anchor] = field(default_factory=list)

    def span(self) -> tuple[float, float]:
        """From the highest to the lowest point."""
        heights = [self.source[1], *(y for _, y in self.readers)]
        return min(heights), max(heights)


class Arcs:
    """Collects what is shared and draws it in lanes beside each other."""

    def __init__(self) -> None:
        self.found: dict[tuple[object, bool], Arc] = {}

    def add(self, key: object, source: Anchor, reader: Anchor, *, weights: bool) -> None:
        """One more reader of a source; `weights` are dashed, values are not."""
        arc = self.found.setdefault((key, weights), Arc(source, weights))
        if reader not in arc.readers:
            arc.readers.append(reader)

    def kinds(self) -> set[bool]:
        """Whether there are arcs of weights (True) and of values (False)."""
        return {arc.weights for arc in self.found.values()}

    def lanes(self) -> list[list[Arc]]:
        """Arcs that do not meet in one lane, short ones nearest to the stack."""
        lanes: list[list[Arc]] = []
        for arc in sorted(self.found.values(), key=lambda arc: arc.span()[1] - arc.span()[0]):
            top, bottom = arc.span()
            for lane in lanes:
                if all(bottom + 8 < other.span()[0] or other.span()[1] + 8 < top for other in lane):
                    lane.append(arc)
                    break
            else:
                lanes.append([arc])
        return lanes

    def draw(self, canvas: Canvas, x: float) -> None:
        """Draw the lanes from `x` to the right."""
        for number, lane in enumerate(self.lanes()):
            for arc in lane:
                _draw(canvas, arc, x + 12 + number * LANE)


def _draw(canvas: Canvas, arc: Arc, x: float) -> None:
    class_ = "arc dashed" if arc.weights else "arc"
    canvas.circle(*arc.source, 2.5, "tip")
    for reader in arc.readers:
        canvas.line([arc.source, (x, arc.source[1]), (x, reader[1]), (reader[0] + 4, reader[1])], class_)
        canvas.tip(reader[0], reader[1], "left", "tip")
