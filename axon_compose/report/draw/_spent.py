"""Where the memory goes: weights by component and caches by kind at each context, as bars and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from axon_compose.analysis.cost import ContextCost, CostSheet, PartCost
from axon_compose.machine.units import human
from axon_compose.plan import Plan
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._family import Family
from axon_compose.report.draw._html import figure, table
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._sums import CACHES, cache_bytes, parts

__all__ = ["BAR", "ROW", "bar", "spent", "swatch"]

ROW: Final = 48.0
BAR: Final = 16.0


def spent(plan: Plan, sheet: CostSheet) -> Iterator[str]:
    """Markup of the bars, and of a table whose columns add up to them."""
    held = [(kind, part) for kind, part in parts(plan, sheet) if part.weight_bytes]
    yield figure(lambda width: _bars(sheet, held, width))
    yield _table(sheet, held)


def _bars(sheet: CostSheet, held: Sequence[tuple[Family, PartCost]], width: float) -> str:
    """A bar for each context, all in one scale: weights full, caches in outline."""
    canvas = Canvas()
    most = max(1, *(cost.memory_bytes for cost in sheet.contexts))
    for row, cost in enumerate(sheet.contexts):
        canvas.words(0, row * ROW + 14, f"{cost.tokens:,} tokens", "small quiet")
        bar(canvas, row, (width - 1) / most, cost.memory_bytes, _pieces(held, cost), width)
    label = f"{sheet.name}: weights and caches at each context"
    return canvas.svg(width, len(sheet.contexts) * ROW, label, style=False)


def bar(
    canvas: Canvas, row: int, scale: float, total: int, pieces: Iterable[tuple[str, str, int]], width: float
) -> None:
    """A bar of bytes, and their sum above its end.

    Args:
        canvas: Where it is drawn.
        row: Of the bars, from 0.
        scale: Pixels of a byte.
        total: All bytes.
        pieces: Class, name and bytes of each part.
        width: Of the picture.
    """
    x, top = 0.5, row * ROW
    canvas.words(width, top + 14, human(total), "small end")
    for class_, said, nbytes in pieces:
        canvas.rect(x, top + 22, scale * nbytes, BAR, class_, tip=f"{said}: {human(nbytes)}")
        x += scale * nbytes


def _pieces(held: Sequence[tuple[Family, PartCost]], cost: ContextCost) -> Iterator[tuple[str, str, int]]:
    for kind, part in held:
        yield f"{kind}-bar", part.name, part.weight_bytes
    for kind, nbytes in cache_bytes(cost).items():
        if nbytes:
            yield kind, CACHES[kind], nbytes


def _table(sheet: CostSheet, held: Sequence[tuple[Family, PartCost]]) -> str:
    costs = sheet.contexts
    rows = [[swatch(f"{kind}-bar") + text(part.name), *[f"{part.weight_bytes:,}"] * len(costs)] for kind, part in held]
    for kind, label in CACHES.items():
        sizes = [cache_bytes(cost)[kind] for cost in costs]
        if any(sizes):
            rows.append([swatch(kind) + text(label), *(f"{size:,}" for size in sizes)])
    head = ["Weights and caches", *(f"Bytes at {cost.tokens:,}" for cost in costs)]
    return table(head, rows, len(costs), ["all", *(f"{cost.memory_bytes:,}" for cost in costs)])


def swatch(class_: str) -> str:
    """A square in the colour of bars of a class."""
    canvas = Canvas()
    canvas.rect(0.5, 0.5, 11, 11, class_, round_=2)
    return element("svg", *canvas.shapes, class_="swatch", width=12, height=12, aria_hidden="true")
