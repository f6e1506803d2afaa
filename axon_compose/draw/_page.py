"""A page about one model: its picture, its layers, where the parameters and the cache are. It needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axon_compose.draw._box import type_name
from axon_compose.draw._canvas import Canvas
from axon_compose.draw._curves import cache_curves
from axon_compose.draw._family import cache_words
from axon_compose.draw._fold import cards, fold
from axon_compose.draw._html import chart, document, figure, quiet, section, table
from axon_compose.draw._markup import element, text
from axon_compose.draw._picture import picture
from axon_compose.draw._sums import PartSum, cache_sums, facts, part_sums
from axon_compose.draw._words import ranges, share
from axon_compose.memory import count, human
from axon_compose.plan import Branch, Layer, Plan, active_parameters, cache_nbytes, total_parameters, weight_nbytes

__all__ = ["page"]

#: Contexts at which caches are told.
CONTEXTS: Final = (4096, 65536)


def page(plan: Plan) -> str:
    """A page of HTML that holds everything it shows."""
    stack = figure(lambda width: picture(plan, width=width, inside=True))
    columns = element("div", section("The stack", stack), element("div", *_sections(plan)), class_="columns")
    footer = element("footer", text("Caches are those of one sequence in bfloat16, counted in elements."))
    return document(plan.name, *_lead(plan), columns, footer)


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
    yield section("Layers", _layers(plan))
    yield section("Parameters by component", _parts(plan))
    if plan.slots:
        yield section("Cache by kind", _caches(plan))
        yield section("Cache over context", chart(cache_curves(plan)))


def _layers(plan: Plan) -> str:
    rows = [["embedding", text(type_name(plan.embedding)), f"{plan.embedding.size:,}"]]
    for card in cards(fold(plan)):
        layer, times = card.layer, len(card.layers)
        numbers = ranges([layer.index for layer in card.layers])
        size = f"{layer.size:,}" if times == 1 else f"{times} × {layer.size:,}"
        if layer.owner is not None:
            size = f"of layer {layer.owner}"
        kept = "; ".join(cache_words(use.cache) for use in layer.uses() if use.cache is not None)
        rows.append([text(numbers), text(_components(layer)) + quiet(kept), text(size)])
    if plan.final_norm:
        rows.append(["norm", text(type_name(plan.final_norm)), f"{plan.final_norm.size:,}"])
    rows.append(["head", text(type_name(plan.head)), f"{plan.head.size:,}" if plan.head.size else "tied"])
    last = ["all", "", f"{total_parameters(plan):,}"]
    return table(["Layers", "Components and cache", "Parameters"], rows, 1, last)


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
    return table(["Component", "Parameters", "Share"], rows, 2, ["all", f"{total:,}", "100 %"])


def _named(part: PartSum) -> str:
    kind = [part.type] if part.type != part.name else []
    places = [_counted(part.places, "place")] if part.places > 1 else []
    return text(part.name) + quiet(", ".join(kind + places))


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
            text(part.label) + quiet(_counted(len(part.leaves), "cache")),
            *(f"{part.nbytes(tokens):,}" for tokens in CONTEXTS),
        ]
        for part in sums
    ]
    head = ["Kind", *(f"Bytes at {tokens:,}" for tokens in CONTEXTS)]
    return table(head, rows, 2, ["all", *(f"{cache_nbytes(plan, tokens):,}" for tokens in CONTEXTS)])
