"""Healing as a page: the divergence as it fell, and how far each layer was and is from its source."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from axon_compose.machine.units import count
from axon_compose.report._cells import escape
from axon_compose.report._healed import STAGES, curve_rows, figure_rows, healed_headline, healed_notes
from axon_compose.report.draw._chart import Axis, Line, Lines, brief
from axon_compose.report.draw._html import chart, document, figure, note, section, sentence, table
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._receipt import layer_bars

if TYPE_CHECKING:
    from axon_compose.surgery import Healed

__all__ = ["healed_page"]


def healed_page(healed: Healed) -> str:
    """A page of HTML that holds everything it shows."""
    head, *rows = [[text(escape(cell)) for cell in row] for row in figure_rows(healed)]
    return document(
        escape(healed.after.edited),
        element("h1", text(escape(healed.after.edited))),
        note(escape(healed_headline(healed))),
        table(head, rows, 3),
        element("div", *_sections(healed), class_="halves"),
        section("Terms", *(note(sentence(line)) for line in healed_notes(healed))),
    )


def _sections(healed: Healed) -> Iterator[str]:
    if len(healed.curve) > 2 and any(value > 0 for _, tokens, value in healed.curve if tokens):
        yield section("Divergence over tokens", chart(_curve(healed)))
    for title, each in (("Layers as edited", healed.before), ("Layers now", healed.after)):
        if each.layers:
            yield section(title, figure(partial(layer_bars, each)))
    head, *rows = [[text(escape(cell)) for cell in row] for row in curve_rows(healed)]
    yield section("Evaluations", table(head, rows, 1))


def _curve(healed: Healed) -> Lines:
    """A line for each stage, the second from where the first ends, and one at the divergence before both."""
    points = {stage: [(float(at), value) for name, at, value in healed.curve if name == stage] for stage in STAGES}
    learned = points["layers"] + points["logits"]
    level = healed.before.divergence
    lines = [
        Line(STAGES["layers"], points["layers"], "recurrent"),
        Line(STAGES["logits"], points["layers"][-1:] + points["logits"], "attention"),
        Line(STAGES[""], [(learned[0][0], level), (learned[-1][0], level)], "quiet", dashed=True),
    ]
    across, up = Axis("tokens learned from", brief(count)), Axis("nats a token", lambda number: f"{number:.3g}")
    title = f"{healed.after.edited}: divergence over tokens"
    return Lines(title, across, up, [line for line in lines if line.shown()])
