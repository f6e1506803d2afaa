"""A difference of two models for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from axon_compose.machine.units import count, human
from axon_compose.report._cells import escape
from axon_compose.report._html import bold, html_table
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.analysis.diff import Difference, Total

__all__ = ["diff_html", "diff_text"]


def diff_text(difference: Difference, style: Style = PLAIN) -> str:
    """What differs, one line each, then totals of both models."""
    lines = [style.bold(escape(_headline(difference)))]
    if difference.changes:
        rows = [[escape(change.where), escape(change.text)] for change in difference.changes]
        lines += ["", *table(rows, "<<", style=style, heads=0), "", *_totals(difference, style)]
    return "\n".join(lines) + "\n"


def _headline(difference: Difference) -> str:
    before, after = difference.layers
    if difference.equal:
        return f"{difference.a} and {difference.b} compute the same: {before} layers"
    number = len(difference.changes)
    layers = f"{before} layers" if before == after else f"{before} → {after} layers"
    return f"{difference.a} → {difference.b}: {number} difference{'s' if number > 1 else ''}, {layers}"


def _totals(difference: Difference, style: Style) -> Iterator[str]:
    yield from table([["total", "before", "after", "change"], *_rows(difference)], "<>>>", style=style)


def _rows(difference: Difference) -> list[list[str]]:
    return [
        [total.name, _figure(total, total.before), _figure(total, total.after), signed(total)]
        for total in difference.totals
    ]


def _figure(total: Total, value: int) -> str:
    return human(value) if total.unit else count(value)


def signed(total: Total) -> str:
    """How much more the second model has: `+1.20B`, `−310 MB`, `0`."""
    if not total.change:
        return "0"
    return ("+" if total.change > 0 else "−") + _figure(total, abs(total.change))


def diff_html(difference: Difference) -> str:
    """The same as two tables."""
    rows = [[change.where, change.text] for change in difference.changes]
    parts = [bold(_headline(difference))]
    if rows:
        parts.append(html_table([["place", "change"], *rows], "<<"))
        parts.append(html_table([["total", "before", "after", "change"], *_rows(difference)], "<>>>"))
    return "".join(parts)
