"""A canvas: shapes and words collected as SVG, each drawn by its class."""

from __future__ import annotations

from collections.abc import Sequence

from axon_compose.report.draw._markup import element, number, svg, text
from axon_compose.report.draw._palette import Theme, style_sheet

__all__ = ["Canvas"]

#: Radius of corners of lines and boxes.
_ROUND = 6.0


class Canvas:
    """Shapes in the order in which they are drawn."""

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, class_: str, *, round_: float = 0, tip: str = ""
    ) -> None:
        """A box, with a text that appears under the pointer."""
        nested = (element("title", text(tip)),) if tip else ()
        corners = {"rx": round_} if round_ else {}
        self.shapes.append(element("rect", *nested, x=x, y=y, width=width, height=height, **corners, class_=class_))

    def circle(self, x: float, y: float, radius: float, class_: str) -> None:
        """A circle around a point."""
        self.shapes.append(element("circle", cx=x, cy=y, r=radius, class_=class_))

    def path(self, commands: str, class_: str) -> None:
        """A path in SVG's own words."""
        self.shapes.append(element("path", d=commands, class_=class_))

    def line(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        """A line through points, its corners rounded; every part of it is level or upright."""
        commands = [f"M{_at(points[0])}"]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            commands.append(f"L{_at(_towards(corner, before))}Q{_at(corner)} {_at(_towards(corner, after))}")
        self.path("".join([*commands, f"L{_at(points[-1])}"]), class_)

    def tip(self, x: float, y: float, towards: str, class_: str) -> None:
        """The head of an arrow that points `left`, `right` or `down` and ends at a point."""
        back = {"left": ((6, -4), (6, 4)), "right": ((-6, -4), (-6, 4)), "down": ((-4, -6), (4, -6))}[towards]
        self.path(f"M{_at((x, y))}" + "".join(f"L{_at((x + dx, y + dy))}" for dx, dy in back) + "Z", class_)

    def words(self, x: float, y: float, said: str, class_: str) -> None:
        """A text whose line stands on `y`."""
        if said:
            self.shapes.append(element("text", text(said), x=x, y=y, class_=class_))

    def pair(self, x: float, y: float, name: str, kind: str) -> None:
        """A name, and after it in quiet letters what it is."""
        nested = (element("tspan", text(kind), dx=6, class_="small quiet light"),) if kind else ()
        self.shapes.append(element("text", text(name), *nested, x=x, y=y, class_="name"))

    def svg(self, width: float, height: float, label: str, theme: Theme = "both", *, style: bool = True) -> str:
        """Everything as one SVG.

        Args:
            width: In pixels, its natural size.
            height: In pixels.
            label: What a screen reader says.
            theme: Colours of the style sheet.
            style: Whether the style sheet is inside; a page that has it already leaves it out.
        """
        sheet = (element("style", style_sheet(theme)),) if style else ()
        ground = element("rect", width=width, height=height, class_="paper")
        return svg(label, width, height, *sheet, ground, *self.shapes)


def _at(point: tuple[float, float]) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The point where the rounding of a corner begins, on the way to another point."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = abs(dx) + abs(dy)
    step = min(_ROUND, length / 2) / length if length else 0
    return corner[0] + dx * step, corner[1] + dy * step
