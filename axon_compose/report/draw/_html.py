"""Parts that pages are made of: sections, tables, pictures for a desk and for a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from axon_compose.report._cells import escape
from axon_compose.report.draw._chart import Lines, Points
from axon_compose.report.draw._markup import element, svg, text, void
from axon_compose.report.draw._palette import style_sheet, variables

__all__ = [
    "DESK",
    "PHONE",
    "chart",
    "document",
    "figure",
    "models",
    "note",
    "picture_alone",
    "quiet",
    "section",
    "sentence",
    "table",
]

#: Widths of pictures in pixels, on a desk and on a phone.
DESK: Final = 560.0
PHONE: Final = 350.0

_STYLE: Final = Path(__file__).parent / "page.css"


def document(title: str, *children: str) -> str:
    """A page of HTML that holds everything it shows.

    Args:
        title: As a browser names it; plain text.
        children: Markup of its parts.
    """
    style = variables() + _STYLE.read_text(encoding="utf-8") + style_sheet()
    head = element(
        "head",
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", text(title)),
        element("style", style),
    )
    body = element("body", element("main", *children))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def section(title: str, *children: str) -> str:
    """Markup under a heading."""
    return element("section", element("h2", text(title)), *children)


def figure(draw: Callable[[float], str], below: str = "") -> str:
    """A picture in the width of a desk and in that of a phone, and markup below both."""
    widths = ((DESK, "wide"), (PHONE, "small-screen"))
    return element("figure", *(element("div", draw(width), class_=class_) for width, class_ in widths), below)


def chart(drawn: Lines | Points) -> str:
    """A chart in both widths; lines with their names."""
    return figure(drawn.svg, drawn.names() if isinstance(drawn, Lines) else "")


def picture_alone(title: str, width: float, height: float, *charts: str) -> str:
    """Charts as an SVG that needs no page: it brings the colours along, and a ground."""
    style = element("style", variables() + style_sheet())
    ground = element("rect", width=width, height=height, style="fill: var(--paper)")
    return svg(title, width, height, style, ground, *charts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], amounts: int, last: Sequence[str] = ()) -> str:
    """A table of markup whose last `amounts` columns are numbers."""

    def row(tag: str, cells: Sequence[str]) -> str:
        words = len(cells) - amounts
        return element(
            "tr",
            *(element(tag, cell or " ", **({} if n < words else {"class_": "amount"})) for n, cell in enumerate(cells)),
        )

    parts = [element("thead", row("th", head)), element("tbody", *(row("td", cells) for cells in rows))]
    if last:
        parts.append(element("tfoot", row("td", last)))
    return element("div", element("table", *parts), class_="scroll")


def models(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts with a row for each model, its name first.

    On a narrow screen a row is a list, in which each figure has its title beside it.
    """

    def row(tag: str, cells: Sequence[str], labels: Sequence[str] = ()) -> str:
        name, *figures = (text(escape(cell)) for cell in cells)
        beside = [{"data_label": label} for label in labels[1:]] or [{}] * len(figures)
        amounts = (element(tag, cell, class_="amount", **more) for cell, more in zip(figures, beside, strict=True))
        return element("tr", element(tag, name), *amounts)

    body = element("tbody", *(row("td", cells, titles) for cells in rows))
    return element("div", element("table", element("thead", row("th", titles)), body, class_="models"), class_="scroll")


def quiet(words: str) -> str:
    """A second line in a cell."""
    return element("span", text(words), class_="kind") if words else ""


def sentence(words: str) -> str:
    """A plain text as a sentence of its own."""
    return escape(f"{words[:1].upper()}{words[1:]}.")


def note(words: str) -> str:
    """A sentence below a chart or a table."""
    return element("p", text(words))
