"""Several devices on a page: what each strategy puts on one of them as bars, and the figures as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axon_compose.analysis.devices import DevicesSheet, StrategyCost
from axon_compose.machine.units import human
from axon_compose.report._devices import devices_notes, strategy_rows
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._html import figure, models, note, section, sentence
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._spent import swatch

__all__ = ["devices_section"]

ROW: Final = 48.0
BAR: Final = 16.0
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
    for number, row in enumerate(sheet.strategies):
        x, top = 0.5, number * ROW
        chosen = "small" if row.name == sheet.recommended else "small quiet"
        canvas.words(0, top + 14, row.name, chosen)
        canvas.words(width, top + 14, human(row.memory_bytes), "small end")
        for said, nbytes in _pieces(row):
            room = (width - 1) * nbytes / most
            canvas.rect(x, top + 22, room, BAR, _CLASSES[said], tip=f"{said}: {human(nbytes)}")
            x += room
        if there is not None:
            end = (width - 1) * there / most
            canvas.line([(end, top + 19), (end, top + 25 + BAR)], "flow")
    return canvas.svg(
        width, len(sheet.strategies) * ROW, f"{sheet.name}: memory of one device by each strategy", style=False
    )


def _pieces(row: StrategyCost) -> Iterator[tuple[str, int]]:
    yield "weights", row.weight_bytes
    yield "caches", row.cache_bytes
    yield "in between", row.activation_bytes
