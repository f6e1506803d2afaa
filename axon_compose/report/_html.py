"""Tables for a notebook: the same cells as in the terminal, escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bold", "html_table", "paragraph"]


def html_table(rows: Sequence[Sequence[str]], align: str) -> str:
    """A table whose first row is its head; `align` has `<` or `>` for each column."""
    head, *body = (
        "<tr>" + "".join(_cell(tag, *pair) for pair in zip(row, align, strict=True)) + "</tr>"
        for tag, row in (("td" if number else "th", row) for number, row in enumerate(rows))
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _cell(tag: str, text: str, side: str) -> str:
    return f'<{tag} style="text-align:{"right" if side == ">" else "left"}">{escape(text)}</{tag}>'


def paragraph(text: str) -> str:
    """A line of text."""
    return f"<p>{escape(text.strip())}</p>"


def bold(text: str) -> str:
    """A line that stands over a table."""
    return f"<p><b>{escape(text)}</b></p>"
