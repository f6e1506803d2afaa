"""Plain text tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from axon_compose.report._style import PLAIN, Style

__all__ = ["table"]

_GAP: Final = "  "
#: Columns of a text that is broken into lines, at least.
_LEAST: Final = 24

Rows = Sequence[Sequence[str]]


def table(rows: Rows, align: str, indent: int = 2, *, style: Style = PLAIN, heads: int = 1, keys: int = 1) -> list[str]:
    """The rows of a table as text.

    Where the terminal is narrower, texts in the last column are broken into several lines; a table that ends with
    figures is divided into several, one below the other, each with the first columns.

    Args:
        rows: The cells, the head first.
        align: `<` or `>` for each column.
        indent: Blanks before each line.
        style: Whether heads are dimmed, and how many columns there are.
        heads: Rows of the head.
        keys: First columns that name a row.

    Returns:
        A text for each row, of more than one line where its last cell is broken.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    room = None if style.columns is None else style.columns - indent
    if room is None or sum(widths) + len(_GAP) * (len(align) - 1) <= room:
        return list(_lines(rows, align, widths, indent, style, heads))
    if align[-1] == "<":
        widths[-1] = max(room - sum(widths[:-1]) - len(_GAP) * (len(align) - 1), _LEAST)
        return list(_lines(rows, align, widths, indent, style, heads))
    bands = [[*range(keys), *band] for band in _bands(widths, room, keys)]
    parts = [
        list(_lines([[row[at] for at in band] for row in rows], "".join(align[at] for at in band),
                    [widths[at] for at in band], indent, style, heads))
        for band in bands
    ]  # fmt: skip
    return [line for number, part in enumerate(parts) for line in ([""] if number else []) + part]


def _bands(widths: Sequence[int], room: int, keys: int) -> Iterator[list[int]]:
    """Columns after the keys, in groups that fit beside those; at least one each."""
    band: list[int] = []
    for at in range(keys, len(widths)):
        taken = [*range(keys), *band, at]
        if band and sum(widths[column] for column in taken) + len(_GAP) * (len(taken) - 1) > room:
            yield band
            band = []
        band.append(at)
    yield band


def _lines(rows: Rows, align: str, widths: Sequence[int], indent: int, style: Style, heads: int) -> Iterator[str]:
    for number, row in enumerate(rows):
        *first, last = row
        broken = _broken(last, widths[-1]) if len(last) > widths[-1] else [last]
        texts = zip_longest([first], broken, fillvalue=[""] * len(first))
        lines = []
        for cells, text in texts:
            written = zip([*cells, text], align, widths, strict=True)
            lines.append((" " * indent + _GAP.join(f"{cell:{side}{width}}" for cell, side, width in written)).rstrip())
        whole = "\n".join(lines)
        yield style.dim(whole) if number < heads and whole else whole


def _broken(text: str, width: int) -> list[str]:
    from textwrap import wrap  # the expressions that it compiles take a millisecond, and most tables need none

    return wrap(text, width, break_on_hyphens=False)
