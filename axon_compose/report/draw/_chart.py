"""Charts: lines, and named points. matplotlib draws them; the page gives them font and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from axon_compose.report._cells import escape
from axon_compose.report.draw._axes import Axis, brief, lay_out
from axon_compose.report.draw._beside import room_for_names, write_names
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._matplotlib import canvas, paint, to_svg
from axon_compose.report.draw._palette import Tone

__all__ = ["CYCLE", "Axis", "Line", "Lines", "Point", "Points", "brief"]

#: Tones of things that are no family, in the order in which they are taken.
CYCLE: Final[tuple[Tone, ...]] = ("recurrent", "attention", "feed-forward", "embedding", "experts", "mixed", "head")
HEIGHT: Final = 300.0


@dataclass(frozen=True)
class Line:
    """A line through points.

    Attributes:
        label: Its name.
        points: From left to right; those that are not above 0 have no place among powers and are left out.
        tone: Its colour.
        dashed: A sum or a bound rather than a part.
        thin: One of several that a line of the same tone stands for; it is not named.
    """

    label: str
    points: Sequence[tuple[float, float]]
    tone: Tone
    dashed: bool = False
    thin: bool = False

    def shown(self) -> list[tuple[float, float]]:
        """The points that are drawn."""
        return [point for point in self.points if min(point) > 0]


@dataclass(frozen=True)
class Lines:
    """Lines on two axes of powers; later ones lie above earlier ones.

    Attributes:
        title: What a screen reader says. Charts of one page have different ones.
        across: What runs to the right.
        up: What runs upwards.
        lines: At least one of them with a point that is drawn.
        named: Whether names stand beside the ends of lines, for a picture without a list of them.
    """

    title: str
    across: Axis
    up: Axis
    lines: Sequence[Line]
    named: bool = False

    def svg(self, width: float, height: float = HEIGHT) -> str:
        """An element of a page, of `width` x `height` pixels; `names` labels the lines."""
        with canvas(self.title, width, height) as (figure, axes):
            for line in filter(Line.shown, self.lines):
                style = (0, (2.5, 1.5)) if line.dashed else "-"
                look = {"linewidth": 1, "alpha": 0.4} if line.thin else {}
                axes.plot(*zip(*line.shown(), strict=True), color=paint(line.tone), ls=style, clip_on=False, **look)
            every = [point for line in self.lines for point in line.shown()]
            across = self.across.span([x for x, _ in every], tight=True)
            up = self.up.span([y for _, y in every])
            names = [(line.label, *line.shown()[-1]) for line in self._with_names()]
            beside = room_for_names(name for name, _, _ in names) if names else 0.0
            lay_out(axes, (self.across, across), (self.up, up), width, height, beside)
            write_names(axes, names, ends=True)
            return to_svg(figure, self.title)

    def _with_names(self) -> list[Line]:
        """The lines that have a name beside their end."""
        return [line for line in self.lines if self.named and line.shown() and not line.thin]

    def names(self) -> str:
        """The lines by name, a list for below the chart."""
        return element("ul", *(_name(line) for line in self.lines if not line.thin), class_="names")


def _name(line: Line) -> str:
    style = f"fill: none; stroke: var(--{line.tone}); stroke-width: 2.2" + "; stroke-dasharray: 5 3" * line.dashed
    swatch = element("svg", element("path", d="M0 5H20", style=style), width=20, height=10, aria_hidden="true")
    return element("li", swatch, text(escape(line.label)))


@dataclass(frozen=True)
class Point:
    """A named point.

    Attributes:
        name: Stands beside it.
        x: To the right, not below 0.
        y: Upwards, not below 0.
        tone: Its colour.
    """

    name: str
    x: float
    y: float
    tone: Tone = "recurrent"


@dataclass(frozen=True)
class Points:
    """Named points on axes of powers; an axis on which a point is 0 has equal steps instead.

    Attributes:
        title: What a screen reader says. Charts of one page have different ones.
        across: What runs to the right.
        up: What runs upwards.
        points: At least one.
    """

    title: str
    across: Axis
    up: Axis
    points: Sequence[Point]

    def svg(self, width: float, height: float = HEIGHT) -> str:
        """An element of a page, of `width` x `height` pixels."""
        with canvas(self.title, width, height) as (figure, axes):
            for point in self.points:
                axes.plot(point.x, point.y, "o", color=paint(point.tone), clip_on=False)
            across = self.across.span([point.x for point in self.points])
            up = self.up.span([point.y for point in self.points])
            lay_out(axes, (self.across, across), (self.up, up), width, height)
            write_names(axes, [(point.name, point.x, point.y) for point in self.points])
            return to_svg(figure, self.title)
