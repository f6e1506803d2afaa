"""Charts: points stand where the numbers say, in the page's colours; nothing is left behind or taken from a user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from math import log
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.machine.units import count, human
from axon_compose.report.draw._axes import Span, ticks
from axon_compose.report.draw._chart import Axis, Line, Lines, Point, Points, brief
from axon_compose.report.draw._html import chart, document
from axon_compose.report.draw._palette import TONES, variables
from axon_compose.report.draw._words import width as width_of

SVG = "{http://www.w3.org/2000/svg}"
TOKENS = Axis("tokens", lambda tokens: f"{tokens:.0f}", base=4)
BYTES = Axis("bytes", brief(human))
TWO = Lines(
    "two lines",
    TOKENS,
    BYTES,
    [
        Line("grows", [(256, 1e6), (4096, 16e6), (65536, 256e6)], "attention"),
        Line("stays", [(256, 0), (4096, 5e6), (65536, 5e6)], "recurrent", dashed=True),
    ],
)


def curves(root: ET.Element) -> dict[str, list[tuple[float, float]]]:
    """Points of every line by its colour; grid lines are those of `line`."""
    found = {}
    for path in root.iter(f"{SVG}path"):
        tone = re.search(r"stroke: var\(--([\w-]+)\)", path.get("style", ""))
        if tone:
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))]
            found[tone[1]] = list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def labels(root: ET.Element) -> dict[str, tuple[float, float]]:
    return {text.text or "": (float(text.get("x", 0)), float(text.get("y", 0))) for text in root.iter(f"{SVG}text")}


def test_points_stand_where_the_ticks_say() -> None:
    root = ET.fromstring(TWO.svg(560))
    lines, where = curves(root), labels(root)
    left, right = where["256"][0], where["65536"][0]
    bottom, top = where["1 MB"][1] - 4, where["100 MB"][1] - 4  # a text hangs on its line by 4 pixels
    for tone, points in (("attention", TWO.lines[0].points), ("recurrent", TWO.lines[1].points[1:])):
        assert len(lines[tone]) == len(points)
        for (x, y), (tokens, nbytes) in zip(lines[tone], points, strict=True):
            assert x == pytest.approx(left + (right - left) * log(tokens / 256) / log(256), abs=0.2)
            assert y == pytest.approx(bottom + (top - bottom) * log(nbytes / 1e6) / log(100), abs=0.6)


def test_a_point_that_is_nothing_is_left_out_and_one_alone_is_drawn() -> None:
    assert len(curves(ET.fromstring(TWO.svg(350)))["recurrent"]) == 2
    alone = Lines("alone", TOKENS, BYTES, [Line("x", [(256, 7)], "ink"), Line("none", [(256, 0)], "head")])
    assert "7 B" not in alone.svg(350)
    assert "5 B" in alone.svg(350)


@pytest.mark.parametrize("width", [350, 560])
def test_a_chart_fits_and_carries_only_colours_of_the_page(width: int) -> None:
    written = TWO.svg(width)
    root = ET.fromstring(written)
    assert root.get("viewBox") == f"0 0 {width} 300"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "two lines"
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b|font-family|font-size|<style|<metadata|\brgb", written)
    assert {f"--{tone}" for tone in TONES} <= set(re.findall(r"(--[\w-]+):", variables()))
    for x, y in labels(root).values():
        assert 0 <= x <= width
        assert 0 <= y <= 300


def test_the_same_chart_gives_the_same_bytes_whatever_the_user_has_set() -> None:
    import matplotlib

    first = TWO.svg(560)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path", "text.usetex": True}):
        assert TWO.svg(560) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert matplotlib.rcParams["svg.fonttype"] == "path"


def test_ids_of_a_page_are_its_own() -> None:
    several = [Points(title, BYTES, BYTES, [Point("a", 1e6, 2e6), Point("b", 3e6, 2e6)]) for title in "xy"]
    found = re.findall(r'\bid="([^"]+)"', document("page", *map(chart, several), chart(TWO)))
    assert found
    assert len(found) == len(set(found))


def test_names_of_points_stand_apart_and_inside() -> None:
    points = [Point(f"architecture-{n}", 1e9 * 1.05**n, 4e9 * 1.04**n) for n in range(6)]
    root = ET.fromstring(Points("many", BYTES, Axis("parameters", brief(count)), points).svg(350))
    boxes = []
    for text in root.iter(f"{SVG}text"):
        if (text.text or "").startswith("architecture"):
            room, x, y = width_of(text.text or "", 11) * 0.9, float(text.get("x", 0)), float(text.get("y", 0))
            anchor = re.search(r"text-anchor: (\w+)", text.get("style", ""))
            assert anchor
            left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor[1]] * room
            boxes.append((left, y - 9, left + room, y + 2))
    assert len(boxes) == len(points)
    assert all(left >= 0 and top >= 0 and right <= 350 and bottom <= 300 for left, top, right, bottom in boxes)
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_names_of_lines_are_beside_their_ends_and_apart() -> None:
    """To the right, where no line goes; also where the ends are close to each other, and where one is long."""
    levels = (5e6, 5.1e6, 5.2e6, 5.3e6, 256e6)
    lines = [Line(f"line-{'x' * n}", [(256, 1e6), (65536, level)], "ink") for n, level in enumerate(levels)]
    root = ET.fromstring(Lines("named", TOKENS, BYTES, lines, named=True).svg(430))
    end = max(x for points in curves(root).values() for x, _ in points)
    heights = []
    for line in lines:
        left, height = labels(root)[line.label]
        assert end < left
        assert left + width_of(line.label, 11) <= 430
        heights.append(height)
    assert all(after - before >= 9 for before, after in pairwise(sorted(heights)))


@pytest.mark.parametrize(
    "name", ["$x$", "$", "_hidden", "漢字 🦀", "a<b>&\"'", "\x1b[31m\x00", "\\frac{", "x" * 500, ""]
)
def test_any_name_is_text(name: str) -> None:
    drawn = Points(name or "t", BYTES, BYTES, [Point(name, 1e6, 1e6), Point("other", 0, 2e6)])
    root = ET.fromstring(drawn.svg(350))
    shown = {text.text for text in root.iter(f"{SVG}text")}
    if name.isprintable() and 0 < len(name) <= 28:
        assert name in shown
    lines = Lines("t", TOKENS, BYTES, [Line(name, [(256, 1), (512, 2)], "ink")])
    names = ET.fromstring(lines.names())
    assert len(names) == 1
    assert "\x1b" not in lines.names()


@pytest.mark.parametrize("base", [4, 10])
@given(low=st.floats(1e-3, 1e12), factor=st.floats(1, 1e15), room=st.floats(60, 600))
def test_ticks_are_round_and_have_room(base: int, low: float, factor: float, room: float) -> None:
    span = Span.of([low, low * factor])
    assert span.low < low <= low * factor < span.high
    found = ticks(span, base, room, lambda _: 40)
    assert all(room * (span.place(b) - span.place(a)) >= 40 for a, b in pairwise(found))
    for value in found:
        assert -1e-6 <= span.place(value) <= 1 + 1e-6
        assert f"{value:e}".rstrip("0123456789")[:-2].rstrip("0").rstrip(".") in "125" or base == 4
        assert base == 10 or log(value, 4) == pytest.approx(round(log(value, 4)), abs=1e-6)


def test_steps_are_equal_where_there_is_a_zero() -> None:
    span = Span.of([0, 100])
    assert (span.low, span.powers) == (0, False)
    assert ticks(span, 10, 300, lambda _: 40) == [0, 25, 50, 75, 100]
    assert ticks(span, 10, 45, lambda _: 40) == [0, 100]


def test_brief_words() -> None:
    assert [brief(human)(n) for n in (2e9, 2.5e9, 200e6, 1, 0)] == ["2 GB", "2.5 GB", "200 MB", "1 B", "0 B"]
    assert [brief(count)(n) for n in (5e9, 1.25e9, 100)] == ["5B", "1.25B", "100"]


def test_a_page_leaves_nothing_at_home_and_needs_no_display(tmp_path: Path) -> None:
    home, place = tmp_path / "home", tmp_path / "place"
    home.mkdir()
    place.mkdir()
    (place / "matplotlibrc").write_text("font.size: 40\nbackend: TkAgg\n")
    unset = ("MPLCONFIGDIR", "DISPLAY", "WAYLAND_DISPLAY", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(home)}
    # After five seconds matplotlib says that it is listing fonts: on this machine at once.
    slow = "import sys, threading; threading.Timer.start = lambda timer: timer.function(); "
    run = slow + "from axon_compose.cli import main; sys.exit(main(['draw', 'hybrid-demo', '-o', sys.argv[1]]))"
    command = [sys.executable, "-c", run, "a.html"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert list(home.iterdir()) == []
    (place / "matplotlibrc").unlink()
    subprocess.run([*command[:-1], "b.html"], cwd=place, env=environment, check=True, capture_output=True)
    assert (place / "a.html").read_bytes() == (place / "b.html").read_bytes()
