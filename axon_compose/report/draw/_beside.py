"""Names beside points: inside the chart, on no point and on no other name, as far as there is room.

Names of lines are to the right of their ends, where no line is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Final, Literal

from axon_compose.report._cells import escape, shorten
from axon_compose.report.draw._words import width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

__all__ = ["room_for_names", "write_names"]

_Place = tuple[float, float, Literal["left", "right", "center"], Literal["top", "bottom", "center"]]

#: Letters of a name at most.
_LONGEST: Final = 28
#: Half the side of a point.
_RADIUS: Final = 5.0
#: Where a name stands, best first: right, left, above, below; then the same further away.
_SIDES: Final[tuple[_Place, ...]] = (
    (8, 0, "left", "center"),
    (-8, 0, "right", "center"),
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
)
_PLACES: Final[list[_Place]] = [(dx * far, dy * far, h, v) for far, (dx, dy, h, v) in product((1, 2, 3), _SIDES)]
_BESIDE_ENDS: Final[list[_Place]] = [(8, 7.0 * up, "left", "center") for up in (0, 1, -1, 2, -2, 3, -3, 4, -4)]
#: Size of letters in pixels.
_SIZE: Final = 11.0
#: Letters outside of the chart are worse than letters on others.
_OUTSIDE: Final = 10


def room_for_names(names: Iterable[str]) -> float:
    """Pixels to the right of the ends of lines that their names take."""
    return 8 + max((width(_shown(name), _SIZE) for name in names), default=0.0)


def write_names(axes: Axes, names: Sequence[tuple[str, float, float]], *, ends: bool = False) -> None:
    """Write every name beside its point, each at the first place where it covers nothing, or the least.

    Args:
        axes: The chart, its limits set.
        names: Name, and the point in the numbers of the axes.
        ends: Whether the points are ends of lines, which have `room_for_names` to their right.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    corners = (axes.transData.transform((x, y)) for _, x, y in names)
    taken = [Bbox.from_bounds(x - _RADIUS, y - _RADIUS, 2 * _RADIUS, 2 * _RADIUS) for x, y in corners]
    for said, x, y in names:
        name = axes.annotate(
            _shown(said), (x, y), (0, 0), textcoords="offset points", annotation_clip=False, in_layout=False
        )
        best = min(_BESIDE_ENDS if ends else _PLACES, key=lambda place: _trouble(_box(name, place), figure.bbox, taken))
        taken.append(_box(name, best))


def _shown(name: str) -> str:
    return shorten(escape(name), _LONGEST)


def _box(name: Annotation, place: _Place) -> Bbox:
    """Move a name to a place; what it covers there."""
    dx, dy, across, up = place
    name.xyann = (dx, dy)
    name.set(ha=across, va=up)
    return name.get_window_extent()


def _trouble(box: Bbox, room: Bbox, taken: Sequence[Bbox]) -> float:
    outside = box.width * box.height - _common(box, room)
    return float(_OUTSIDE * outside + sum(_common(box, other) for other in taken))


def _common(box: Bbox, other: Bbox) -> float:
    """The area in which two boxes meet."""
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
