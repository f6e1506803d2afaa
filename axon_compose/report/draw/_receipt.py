"""The receipt of an edit as a page: how far each layer has moved, and where in a sequence predictions differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from axon_compose.machine.units import count
from axon_compose.report._cells import escape, shorten
from axon_compose.report._receipt import figures, layer_rows, receipt_headline, receipt_notes, small
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._chart import Axis, Line, Lines, brief
from axon_compose.report.draw._html import chart, document, figure, note, section, sentence, table
from axon_compose.report.draw._markup import element, text

if TYPE_CHECKING:
    from axon_compose.surgery import Receipt

__all__ = ["layer_bars", "receipt_page", "receipt_picture"]

_ROW: Final = 22.0
_BAR: Final = 12.0
#: Where bars begin, and room for the figure after the longest.
_LEFT: Final = 170.0
_RIGHT: Final = 64.0
#: Letters of components that stand before a bar.
_LETTERS: Final = 22


def receipt_page(receipt: Receipt) -> str:
    """A page of HTML that holds everything it shows."""
    totals = [
        element("div", element("dt", text(name)), element("dd", text(escape(said)))) for name, said in figures(receipt)
    ]
    return document(
        escape(receipt.edited),
        element("h1", text(escape(receipt.edited))),
        note(escape(receipt_headline(receipt))),
        element("dl", *totals, class_="totals"),
        *_sections(receipt),
        section("Terms", *(note(sentence(line)) for line in receipt_notes(receipt))),
    )


def receipt_picture(receipt: Receipt, width: float = 560.0) -> str:
    """The layers as one SVG that needs no page."""
    return layer_bars(receipt, width, style=True) + "\n"


def _sections(receipt: Receipt) -> Iterator[str]:
    if receipt.layers:
        yield section(
            "Layers",
            figure(lambda width: layer_bars(receipt, width)),
            note("How far what a layer gives is from the source's; layers that were changed are in colour."),
        )
    if not receipt.exact:
        yield section("Places in a sequence", chart(_by_place(receipt)))
    if receipt.layers:
        head, *rows = [[text(escape(cell)) for cell in row] for row in layer_rows(receipt)]
        yield section("Layer by layer", table(head, rows, 1))


def layer_bars(receipt: Receipt, width: float, *, style: bool = False) -> str:
    """A bar for each layer, all in one scale; changed layers in colour."""
    canvas = Canvas()
    room = width - _LEFT - _RIGHT
    most = max((each.gap or 0.0 for each in receipt.layers), default=0.0) or 1.0
    for row, each in enumerate(receipt.layers):
        top = row * _ROW
        kind = "ink" if each.changed else "quiet"
        canvas.words(22, top + 14, str(each.index), f"small end {kind}")
        canvas.words(30, top + 14, shorten(escape(each.components), _LETTERS), f"small {kind}")
        canvas.rect(_LEFT, top + 5, room, _BAR, "track", round_=2)
        long = room * (each.gap or 0.0) / most
        tip = f"layer {each.index}, from {'nothing' if each.origin is None else each.origin}: {small(each.gap)}"
        if long:
            canvas.rect(
                _LEFT, top + 5, max(long, 1), _BAR, "experts-bar" if each.changed else "norm-bar", round_=2, tip=tip
            )
        canvas.words(width, top + 15, small(each.gap), "small end quiet")
    label = f"{receipt.edited}: relative difference of the hidden states after each layer"
    return canvas.svg(width, max(len(receipt.layers), 1) * _ROW + 4, label, style=style)


def _by_place(receipt: Receipt) -> Lines:
    """Steps, since a stretch has one mean."""
    points = [(float(place), each.divergence) for each in receipt.stretches for place in (each.first, each.last)]
    line = Line("KL divergence", points, "attention")
    title = f"{receipt.edited}: divergence by place in the sequence"
    return Lines(
        title, Axis("token of a sequence", brief(count), base=2), Axis("nats a token", lambda n: f"{n:.3g}"), [line]
    )
