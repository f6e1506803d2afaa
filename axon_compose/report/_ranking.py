"""Layers by the harm of a change, for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from axon_compose.machine.units import human
from axon_compose.plan import layer_numbers
from axon_compose.report._cells import escape
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._receipt import small
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.surgery import Ranking

__all__ = ["ranking_html", "ranking_text"]


def ranking_text(ranking: Ranking, style: Style = PLAIN) -> str:
    """A line for each layer that was tried, the least harm first."""
    parts = [
        [style.bold(escape(_headline(ranking)))],
        table(_rows(ranking), ">>>>" + "<" * (ranking.chosen is not None), style=style),
        [f"  {escape(line)}" for line in _notes(ranking)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def ranking_html(ranking: Ranking) -> str:
    """The same as a table."""
    rows = html_table(_rows(ranking), ">>>>" + "<" * (ranking.chosen is not None))
    return bold(_headline(ranking)) + rows + "".join(map(paragraph, _notes(ranking)))


def _headline(ranking: Ranking) -> str:
    return f"{ranking.source}: {ranking.change}, in one layer at a time, on {ranking.tokens:,} tokens of {ranking.text}"


def _rows(ranking: Ranking) -> list[list[str]]:
    rows = [["layer", "KL divergence", "same first choice", "cache saved"]]
    for each in ranking.layers:
        saved = human(each.saved_bytes) if each.saved_bytes >= 0 else f"-{human(-each.saved_bytes)}"
        rows.append([str(each.index), small(each.divergence), f"{each.agreement:.2%}", saved])
    if ranking.chosen is not None:
        marks = ["", *("proposed" if each.index in ranking.chosen else "" for each in ranking.layers)]
        rows = [[*row, mark] for row, mark in zip(rows, marks, strict=True)]
    return rows


def _notes(ranking: Ranking) -> Iterator[str]:
    yield f"caches of {ranking.context:,} tokens in bfloat16: {human(ranking.cache_bytes)}"
    if ranking.chosen:
        yield f"with {layer_numbers(ranking.chosen)} changed: {human(ranking.left_bytes)}"
        yield "what several layers do together is not the sum; the receipt of the edit says it"
    elif ranking.chosen is not None:
        yield f"that is no more than {human(ranking.budget or 0)}: nothing has to change"
