"""Healing for the terminal and for notebooks: the receipts before and after, and how the divergence fell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_compose.machine.units import count
from axon_compose.report._cells import escape
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._receipt import small
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.surgery import Healed

__all__ = ["STAGES", "curve_rows", "figure_rows", "healed_headline", "healed_html", "healed_notes", "healed_text"]

#: Stages by their names in a record.
STAGES = {"": "as edited", "layers": "layers by themselves", "logits": "predictions"}


def healed_text(healed: Healed, style: Style = PLAIN) -> str:
    """Figures before and after, and a line for each evaluation."""
    parts = [
        [style.bold(escape(healed_headline(healed)))],
        table(figure_rows(healed), "<>>>", style=style),
        table(curve_rows(healed), "><>", style=style),
        [f"  {escape(line)}" for line in healed_notes(healed)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def healed_html(healed: Healed) -> str:
    """The same as tables."""
    tables = html_table(figure_rows(healed), "<>>>") + html_table(curve_rows(healed), "><>")
    return bold(healed_headline(healed)) + tables + "".join(map(paragraph, healed_notes(healed)))


def healed_headline(healed: Healed) -> str:
    """Which model, and on how much it was measured."""
    after = healed.after
    return f"{after.edited} learns from {after.source}, {after.tokens:,} tokens of {after.text}"


def figure_rows(healed: Healed) -> list[list[str]]:
    """Predictions before and after, the head first."""
    before, after = healed.before, healed.after
    return [
        ["", "as edited", "now", "source"],
        ["KL divergence", small(before.divergence), small(after.divergence), "0"],
        ["same first choice", f"{before.agreement:.2%}", f"{after.agreement:.2%}", "100.00%"],
        ["perplexity", *(f"{each:,.4g}" for each in (before.perplexity, after.perplexity, after.source_perplexity))],
    ]


def curve_rows(healed: Healed) -> list[list[str]]:
    """The divergence over tokens, the head first."""
    rows = [["tokens", "what learned", "KL divergence"]]
    return rows + [[count(tokens), STAGES[stage], small(value)] for stage, tokens, value in healed.curve]


def healed_notes(healed: Healed) -> list[str]:
    """What a reader has to know of the figures."""
    notes = ["KL divergence: of the source's predictions from those of the model, in nats a token"]
    if healed.outcome is not None:
        notes.append(f"wrote {healed.outcome.out}")
    return notes
