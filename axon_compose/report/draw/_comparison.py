"""A page about several models: their figures in a table, what is bought with what, and caches over the context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Final

from axon_compose.machine.units import count, human, operations
from axon_compose.plan import cache_nbytes
from axon_compose.report._cells import escape
from axon_compose.report._comparison import headline, notes
from axon_compose.report.draw._chart import CYCLE, Axis, Line, Lines, Point, Points, brief
from axon_compose.report.draw._curves import TOKENS, grid
from axon_compose.report.draw._html import chart, document, models, note, section
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._palette import Tone

if TYPE_CHECKING:
    from axon_compose.analysis.comparison import Column, Comparison, Row

__all__ = ["comparison_page"]

_BYTES: Final = brief(human)
_RATE: Final = "tokens/s"


def comparison_page(comparison: Comparison) -> str:
    """A page of HTML that holds everything it shows."""
    names = [text(escape(row.name)) for row in comparison.rows]
    lead = element("h1", ", ".join(names[:-1]) + (" and " if names[:-1] else "") + names[-1])
    remarks = (element("p", text(escape(line[:1].upper() + line[1:])), class_="note") for line in notes(comparison))
    columns = element("div", *(section(title, drawn) for title, drawn in _charts(comparison)), class_="halves")
    title = ", ".join(escape(row.name) for row in comparison.rows)
    table = models(
        [_title(column) for column in comparison.columns],
        [[column.text(row) for column in comparison.columns] for row in comparison.rows],
    )
    return document(title, lead, note(headline(comparison)), table, *remarks, columns)


def _title(column: Column) -> str:
    """In two lines at most: the second is not broken."""
    first, second = column.title
    return " ".join((first, second.replace(" ", "\N{NO-BREAK SPACE}"))).strip()


# Charts.


def _charts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    longest = f"{max(comparison.contexts):,} tokens"
    tones = dict(zip((row.name for row in comparison.rows), cycle(CYCLE), strict=False))
    if comparison.memory is not None:
        yield "Memory over context", chart(_memory(comparison, tones))
    memory = Axis(f"memory at {longest}", _BYTES)
    work = Axis("FLOPs of a decoded token" + ("" if _exact(comparison) else ", at least"), brief(operations))
    pairs = [
        ("Work and memory", "decode-flops", work, "memory", memory),
        ("Parameters and cache", "parameters", Axis("parameters", brief(count)), "cache",
         Axis(f"cache at {longest}", _BYTES)),
        ("Memory and speed", "peak", Axis("peak memory", _BYTES), "decode-speed",
         Axis(f"decoded {_RATE}, measured", _rate)),
        ("Memory and bound on speed", "memory", memory, "tokens-per-second", Axis(f"{_RATE} at most", _rate)),
    ]  # fmt: skip
    there = {column.name for column in comparison.columns} | {"cache"}
    for title, x, across, y, up in pairs:
        if x in there and y in there:
            points = _points(comparison, tones, comparison.column(x), comparison.column(y))
            if points:
                yield title, chart(Points(title, across, up, points))
    lines = _lines(comparison, tones, lambda row, n: _caches(comparison, row, n))
    if lines:
        yield "Cache over context", chart(Lines("Cache over context", TOKENS, Axis("bytes", _BYTES), lines))


def _points(comparison: Comparison, tones: dict[str, Tone], across: Column, up: Column) -> list[Point]:
    """Of the models of which both figures are known."""
    pairs = ((row, across.value(row), up.value(row)) for row in comparison.rows)
    return [
        Point(row.name, x, y, tones[row.name])
        for row, x, y in pairs
        if isinstance(x, int | float) and isinstance(y, int | float)
    ]


def _lines(comparison: Comparison, tones: dict[str, Tone], ask: Callable[[Row, int], int]) -> list[Line]:
    """A line for each model that has something to show; dashed when the colours have all been taken once."""
    lines = []
    for at, row in enumerate(comparison.rows):
        points = [(n, ask(row, n)) for n in grid(row.plan, comparison.contexts)]
        lines.append(Line(row.name, points, tones[row.name], dashed=at // len(CYCLE) % 2 > 0))
    return [line for line in lines if line.shown()]


def _caches(comparison: Comparison, row: Row, tokens: int) -> int:
    return comparison.batch * cache_nbytes(row.plan, tokens, comparison.dtype)


def _memory(comparison: Comparison, tones: dict[str, Tone]) -> Lines:
    """Weights and caches, and what there is."""
    there = comparison.memory or 0
    lines = _lines(comparison, tones, lambda row, n: row.sheet.weight_bytes + _caches(comparison, row, n))
    across = grid(comparison.rows[0].plan, comparison.contexts)
    lines.append(Line(f"{human(there)} of memory", [(n, there) for n in across], "ink", dashed=True))
    return Lines("Memory over context", TOKENS, Axis("weights and caches", _BYTES), lines)


def _exact(comparison: Comparison) -> bool:
    return all(row.sheet.exact_flops for row in comparison.rows)


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"
