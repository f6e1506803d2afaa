"""A page about one model: its picture, its layers, where the parameters and the cache are. It needs no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from axon_compose.draw._box import type_name
from axon_compose.draw._canvas import Canvas
from axon_compose.draw._family import cache_words
from axon_compose.draw._fold import cards, fold
from axon_compose.draw._markup import element, text, void
from axon_compose.draw._palette import style_sheet
from axon_compose.draw._picture import WIDTH, picture
from axon_compose.draw._plot import cache_plot
from axon_compose.draw._sums import PartSum, cache_sums, facts, part_sums
from axon_compose.draw._words import ranges, share
from axon_compose.memory import count, human
from axon_compose.plan import Branch, Layer, Plan, active_parameters, cache_nbytes, total_parameters, weight_nbytes

__all__ = ["page"]

#: Width of pictures on a phone, and contexts at which caches are told.
NARROW: Final = 350.0
CONTEXTS: Final = (4096, 65536)

_STYLE: Final = Path(__file__).parent / "page.css"


def page(plan: Plan) -> str:
    """A page of HTML that holds everything it shows."""
    style = _STYLE.read_text(encoding="utf-8") + style_sheet()
    head = element(
        "head",
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", text(plan.name)),
        element("style", style),
    )
    stack = _figure(lambda width: picture(plan, width=width, inside=True))
    columns = element("div", _section("The stack", stack), element("div", *_sections(plan)), class_="columns")
    footer = element("footer", text("Caches are those of one sequence in bfloat16, counted in elements."))
    body = element("body", element("main", *_lead(plan), columns, footer))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _lead(plan: Plan) -> Iterator[str]:
    yield element("h1", text(plan.name))
    yield element("p", text(" · ".join(facts(plan))))
    total, active = total_parameters(plan), active_parameters(plan)
    shown = [("Parameters", count(total)), ("Active per token", count(active))]
    shown += [(f"Weights, {dtype}", human(weight_nbytes(plan, dtype))) for dtype in ("bfloat16", "float32")]
    shown += [(f"Cache at {tokens:,} tokens", human(cache_nbytes(plan, tokens))) for tokens in CONTEXTS]
    tiles = [element("div", element("dt", text(name)), element("dd", text(value))) for name, value in shown]
    yield element("dl", *tiles, class_="totals")


def _sections(plan: Plan) -> Iterator[str]:
    yield _section("Layers", _layers(plan))
    yield _section("Parameters by component", _parts(plan))
    if plan.slots:
        plot = _figure(lambda width: cache_plot(plan, width))
        yield _section("Cache by kind", _caches(plan))
        yield _section("Cache over context", plot)


def _section(title: str, *children: str) -> str:
    return element("section", element("h2", text(title)), *children)


def _figure(draw: Callable[[float], str]) -> str:
    """A picture in the width of a desk and in that of a phone."""
    shown = (
        element("div", draw(width), class_=class_) for width, class_ in ((WIDTH, "wide"), (NARROW, "small-screen"))
    )
    return element("figure", *shown)


# Tables.


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], amounts: int, last: Sequence[str] = ()) -> str:
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


def _layers(plan: Plan) -> str:
    rows = [["embedding", text(type_name(plan.embedding)), f"{plan.embedding.size:,}"]]
    for card in cards(fold(plan)):
        layer, times = card.layer, len(card.layers)
        numbers = ranges([layer.index for layer in card.layers])
        size = f"{layer.size:,}" if times == 1 else f"{times} × {layer.size:,}"
        if layer.owner is not None:
            size = f"of layer {layer.owner}"
        kept = "; ".join(cache_words(use.cache) for use in layer.uses() if use.cache is not None)
        rows.append([text(numbers), text(_components(layer)) + _quiet(kept), text(size)])
    if plan.final_norm:
        rows.append(["norm", text(type_name(plan.final_norm)), f"{plan.final_norm.size:,}"])
    rows.append(["head", text(type_name(plan.head)), f"{plan.head.size:,}" if plan.head.size else "tied"])
    last = ["all", "", f"{total_parameters(plan):,}"]
    return _table(["Layers", "Components and cache", "Parameters"], rows, 1, last)


def _components(layer: Layer) -> str:
    return " → ".join(_branch(branch) for branch in layer.branches)


def _branch(branch: Branch) -> str:
    if branch.add:
        return f"+ {branch.add}"
    return " ∥ ".join(member.use.name for member in branch.members)


def _parts(plan: Plan) -> str:
    total = total_parameters(plan)
    rows = [
        [_named(part) + _meter(part, total), f"{part.parameters:,}", share(part.parameters, total)]
        for part in part_sums(plan)
    ]
    return _table(["Component", "Parameters", "Share"], rows, 2, ["all", f"{total:,}", "100 %"])


def _named(part: PartSum) -> str:
    kind = [part.type] if part.type != part.name else []
    places = [_counted(part.places, "place")] if part.places > 1 else []
    return text(part.name) + _quiet(", ".join(kind + places))


def _quiet(words: str) -> str:
    """A second line in a cell."""
    return element("span", text(words), class_="kind") if words else ""


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _meter(part: PartSum, total: int) -> str:
    """A bar as long as the share of the component."""
    canvas = Canvas()
    canvas.rect(0, 0, 200, 8, "track")
    canvas.rect(0, 0, 200 * part.parameters / total, 8, f"{part.family}-bar")
    return element(
        "svg", *canvas.shapes, class_="meter", viewBox="0 0 200 8", preserveAspectRatio="none", aria_hidden="true"
    )


def _caches(plan: Plan) -> str:
    sums = cache_sums(plan)
    rows = [
        [
            text(part.label) + _quiet(_counted(len(part.leaves), "cache")),
            *(f"{part.nbytes(tokens):,}" for tokens in CONTEXTS),
        ]
        for part in sums
    ]
    head = ["Kind", *(f"Bytes at {tokens:,}" for tokens in CONTEXTS)]
    return _table(head, rows, 2, ["all", *(f"{cache_nbytes(plan, tokens):,}" for tokens in CONTEXTS)])
