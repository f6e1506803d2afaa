"""matplotlib as a drawing hand: a bare figure in, an element of a page out, nothing left behind."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
import xml.etree.ElementTree as ET  # reads what matplotlib has just written, nothing from elsewhere
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Final

from axon_compose.machine.libraries import require_library
from axon_compose.report._cells import escape
from axon_compose.report.draw._markup import element, number, svg, text
from axon_compose.report.draw._palette import TONES, Tone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["apart", "canvas", "paint", "require_charts", "to_svg"]

#: The format counts 72 to the inch: with as many dots, a point is a pixel.
_DPI: Final = 72
_FRACTION: Final = re.compile(r"-?\d+\.\d+")


def require_charts() -> None:
    """Refuse a page if there is nothing that draws its charts.

    Raises:
        Refusal: AX506 with what to install.
    """
    require_library("matplotlib", "matplotlib", "a page with charts", "write a `.svg`, which has none")


@contextmanager
def apart() -> Iterator[None]:
    """Let matplotlib be imported without a trace, for a program whose process is its own.

    Its list of fonts and its settings go to a folder that is gone afterwards, unless `MPLCONFIGDIR` names one. `PATH`
    is empty meanwhile: programs of the system would be asked for their fonts, which takes seconds on macOS, and charts
    are measured with the font that matplotlib brings. Nothing is logged of the list being made, which matplotlib does
    where that takes more than five seconds.
    """
    if "MPLCONFIGDIR" in os.environ:
        yield
        return
    log = logging.getLogger("matplotlib.font_manager")
    level, before = log.level, {name: os.environ.get(name) for name in ("MPLCONFIGDIR", "PATH")}
    with tempfile.TemporaryDirectory(prefix="axon-compose-") as folder:
        os.environ.update(MPLCONFIGDIR=folder, PATH="")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def paint(tone: Tone) -> str:
    """A colour that stands for a tone in matplotlib, until `to_svg` puts the page's own in its place."""
    return f"#0000{TONES.index(tone) + 1:02x}"


@contextmanager
def canvas(title: str, width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes, in pixels, as matplotlib draws it by default whatever the user's settings are.

    Args:
        title: Ids inside come of it and of the size.
        width: In pixels.
        height: In pixels.
    """
    require_charts()
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(f"{title} {width} {height}"))
        # The reader's fonts have letters that the one for measuring lacks.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_autoscale_on(False)  # `lay_out` says from where to where; a level line would be warned of
        axes.grid(clip_on=False)  # nothing that is drawn leaves the axes: no paths to clip with, and no ids for them
        yield figure, axes


def _settings(salt: str) -> dict[str, object]:
    ink, quiet, grid = paint("ink"), paint("quiet"), paint("line")
    bare = {f"axes.spines.{side}": False for side in ("left", "right", "top")}
    return bare | {
        "svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False, "font.size": 11, "text.color": ink,
        "axes.labelsize": 11, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.titlepad": 13,
        "axes.labelcolor": quiet, "axes.titlecolor": quiet, "axes.edgecolor": quiet,
        "axes.axisbelow": True, "grid.color": grid, "grid.linewidth": 1,
        "xtick.color": quiet, "ytick.color": quiet, "xtick.labelsize": 11, "ytick.labelsize": 11,
        "xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 6, "ytick.major.pad": 6,
        "lines.markersize": 8, "lines.markeredgewidth": 0, "lines.linewidth": 2.2, "lines.solid_capstyle": "round",
    }  # fmt: skip


def to_svg(figure: Figure, title: str) -> str:
    """What is drawn as an inline SVG: the page's font and colours, no id that nothing refers to.

    The same figure gives the same text; coordinates are rounded, so that the last bits of a platform do not show.
    """
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(written.getvalue())  # noqa: S314
    width, height = (side * _DPI for side in figure.get_size_inches())
    return svg(escape(title), width, height, *map(_cleaned, root))


def _cleaned(node: ET.Element) -> str:
    tag = node.tag.rpartition("}")[2]
    if tag in ("metadata", "style"):
        return ""
    children = "".join(map(_cleaned, node))
    attributes = dict(_attributes(tag, node.attrib))
    if tag == "text":
        return element(tag, text(node.text or ""), children, **attributes, class_="small")
    if tag in ("g", "defs") and (not children or (tag == "g" and not attributes)):
        return children
    if attributes.get("style") == "fill: none":  # the ground of the figure and of the axes
        return ""
    return element(tag, *filter(None, (children,)), **attributes)


def _attributes(tag: str, found: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Those that say something: shapes keep ids, by which marks are drawn again; groups have theirs for nothing."""
    for name, value in found.items():
        name = name.rpartition("}")[2]
        if name == "style":
            kept = [part for part in value.split("; ") if not part.startswith("font")]
            if kept:
                yield name, _coloured("; ".join(kept))
        elif name == "transform" and value.startswith("rotate(-0 "):
            continue
        elif name != "id" or tag == "path":
            yield name, _FRACTION.sub(lambda match: number(float(match[0])), " ".join(value.split()))


def _coloured(style: str) -> str:
    for tone in TONES:
        style = style.replace(paint(tone), f"var(--{tone})")
    return style
