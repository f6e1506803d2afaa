"""Several devices on a page: what each strategy puts on one of them as bars, and the figures as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axon_compose.analysis.devices import DevicesSheet, StrategyCost
from axon_compose.report._devices import devices_notes, strategy_rows
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._html import figure, models, note, section, sentence
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._spent import BAR, ROW, bar, swatch

__all__ = ["devices_section"]

#: Colours of what is on a device, by the titles of the table.
_CLASSES: Final = {"weights": "block-bar", "caches": "attention", "in between": "norm"}


def devices_section(sheet: DevicesSheet) -> str:
    """The markup of a section."""
    head, *rows = strategy_rows(sheet)
    legend = "".join(element("li", swatch(class_), text(said)) for said, class_ in _CLASSES.items())
    title = f"On {sheet.devices:,} device{'s' * (sheet.devices > 1)}, {sheet.context:,} tokens"
    return section(
        title,
        figure(lambda width: _bars(sheet, width), element("ul", legend, class_="names")),
        models(head, rows),
        *(note(sentence(line)) for line in devices_notes(sheet)),
    )


def _bars(sheet: DevicesSheet, width: float) -> str:
    """A bar for each strategy, all in one scale: weights, caches, and what a pass needs; a line where memory ends."""
    canvas = Canvas()
    there = sheet.hardware.memory
    most = max(1, there or 0, *(row.memory_bytes for row in sheet.strategies))
    scale = (width - 1) / most
    for number, row in enumerate(sheet.strategies):
        top = number * ROW
        chosen = "small" if row.name == sheet.recommended else "small quiet"
        canvas.words(0, top + 14, row.name, chosen)
        bar(canvas, number, scale, row.memory_bytes, _pieces(row), width)
        if there is not None:
            end = scale * there
            canvas.line([(end, top + 19), (end, top + 25 + BAR)], "flow")
    return canvas.svg(
        width, len(sheet.strategies) * ROW, f"{sheet.name}: memory of one device by each strategy", style=False
    )


def _pieces(row: StrategyCost) -> Iterator[tuple[str, str, int]]:
    sizes = (row.weight_bytes, row.cache_bytes, row.activation_bytes)
    for (said, class_), nbytes in zip(_CLASSES.items(), sizes, strict=True):
        yield class_, said, nbytes
