"""The lines of a file that a diagnostic is about, with carets under what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from axon_compose.diagnostics import Span
from axon_compose.record import record
from axon_compose.report._cells import escape, shorten, show, width
from axon_compose.report._style import Style

__all__ = ["Mark", "excerpt", "split_lines"]

_LINE_BREAK: Final = re.compile(r"\r\n?|\n")
#: Characters of a long line that are shown before the caret, and in all.
_BEFORE: Final = 50
_SHOWN: Final = 110
#: Lines of a long span that are shown at its start; its last line follows.
_HEAD_LINES: Final = 2
_LABEL: Final = 200


@record
class Mark:
    """A span to underline: with `^` and the colour of its severity, or with `-` when it only explains."""

    span: Span
    label: str
    pointer: str
    role: str


@record
class _Row:
    """A mark on one line: characters from `start` up to `end`, counted from 0."""

    line: int
    start: int
    end: int
    label: str
    mark: Mark


def split_lines(text: str) -> list[str]:
    """The lines of a text as the YAML reader counts them."""
    return _LINE_BREAK.split(text)


def excerpt(marks: Sequence[Mark], lines: Sequence[str], margin: int, style: Style) -> Iterator[str]:
    """Lines of text with their underlines, in file order; `...` stands for lines left out.

    Args:
        marks: Spans of one file.
        lines: That file.
        margin: Columns for line numbers.
        style: Colours.
    """
    rows = [row for mark in marks for row in _rows(mark, lines)]
    bar = style.paint("|", "frame")
    previous = None
    for number in sorted({row.line for row in rows}):
        if previous is not None and number > previous + 1:
            yield style.paint("...", "frame")
        previous = number
        here = [row for row in rows if row.line == number]
        text = lines[number - 1]
        first = _window(text, here[0].start)
        shown = [show(c) for c in text[first : first + _SHOWN]]
        lead, tail = "…" if first else "", "…" if first + _SHOWN < len(text) else ""
        yield f"{style.paint(str(number).rjust(margin), 'frame')} {bar} {lead}{''.join(shown)}{tail}".rstrip()
        for row in here:
            yield f"{' ' * margin} {bar} {_underline(row, shown, first, style)}"


def _rows(mark: Mark, lines: Sequence[str]) -> Iterator[_Row]:
    """The lines of a span; of a long one the first two and the last. The label goes to the last."""
    first, last = mark.span.start.line, mark.span.end.line
    if last > first and mark.span.end.column == 1:  # up to the line break and no farther
        last -= 1
    first, last = min(first, len(lines)), min(last, len(lines))
    numbers = [n for n in range(first, last + 1) if n < first + _HEAD_LINES or n == last] if last > first else [first]
    for number in numbers:
        text = lines[number - 1]
        start = mark.span.start.column - 1 if number == mark.span.start.line else len(text) - len(text.lstrip())
        end = mark.span.end.column - 1 if number == mark.span.end.line else len(text.rstrip())
        start = min(start, len(text))
        yield _Row(number, start, max(start, min(end, len(text))), mark.label if number == numbers[-1] else "", mark)


def _window(text: str, start: int) -> int:
    """First character that is shown of a line."""
    return max(0, min(start - _BEFORE, len(text) - _SHOWN)) if len(text) > _SHOWN else 0


def _underline(row: _Row, shown: Sequence[str], first: int, style: Style) -> str:
    start, end = row.start - first, row.end - first
    label = escape(shorten(row.label, _LABEL))
    if not 0 <= start <= len(shown):  # the first mark of a long line decides what part of it is shown
        return style.paint(f"column {row.start + 1}: {label}", row.mark.role)
    before = (1 if first else 0) + sum(map(width, shown[:start]))
    pointer = row.mark.pointer * max(1, sum(map(width, shown[start:end])))
    return " " * before + style.paint(f"{pointer} {label}".rstrip(), row.mark.role)
