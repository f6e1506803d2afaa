"""A comparison of models for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from axon_compose.analysis.cost import GROUP_SIZE
from axon_compose.report._cells import escape
from axon_compose.report._devices import assumed, stored
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.analysis.comparison import Column, Comparison

__all__ = ["comparison_html", "comparison_rows", "comparison_text", "headline", "notes"]


def comparison_text(comparison: Comparison, style: Style = PLAIN) -> str:
    """One line for each model under a head of two, and what the figures are of."""
    columns = comparison.columns
    heads = [[_title(column, line) for column in columns] for line in (0, 1)]
    rows = [[escape(column.text(row)) for column in columns] for row in comparison.rows]
    lines = table([*heads, *rows], alignment(columns), style=style, heads=2)
    parts = [[style.bold(headline(comparison))], lines, [f"  {escape(note)}" for note in notes(comparison)]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def comparison_html(comparison: Comparison) -> str:
    """The same as a table."""
    below = "".join(map(paragraph, notes(comparison)))
    return bold(headline(comparison)) + html_table(comparison_rows(comparison), alignment(comparison.columns)) + below


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """The cells, the head in one line."""
    columns = comparison.columns
    head = [" ".join(column.title).strip() for column in columns]
    return [head, *([column.text(row) for column in columns] for row in comparison.rows)]


def alignment(columns: tuple[Column, ...]) -> str:
    return "".join("<" if column.name in ("name", "strategy") else ">" for column in columns)


def _title(column: Column, line: int) -> str:
    """A line of the head; a title of one line stands in the second, above its figures."""
    first, second = column.title
    return (first if line == 0 else second) if second else ("" if line == 0 else first)


def headline(comparison: Comparison) -> str:
    """How many models, and how they are stored."""
    many = len(comparison.rows)
    text = f"{many} model{'s' if many > 1 else ''} in {stored(comparison.dtype, comparison.quantize)}"
    return text if comparison.batch == 1 else f"{text}, {comparison.batch:,} sequences"


def notes(comparison: Comparison) -> Iterator[str]:
    """What the figures are of, and why some are missing."""
    longest = max(comparison.contexts)
    yield f"memory: weights and caches; FLOPs: for each token, at {longest:,} tokens of context"
    if comparison.bandwidth is not None:
        yield f"tokens/s at most: if memory moves {comparison.bandwidth / 1e9:,.4g} GB/s, at {longest:,} tokens"
    for row in comparison.rows[:1]:  # of all rows the same is assumed
        if row.spread is not None:
            yield f"on several devices: the fastest strategy that fits; {assumed(row.spread.hardware)}"
    if comparison.quantize:
        for row in comparison.rows:
            if not row.sheet.quantized_parameters:
                yield f"quantised: nothing of `{row.name}`, since no matrix has rows of a multiple of {GROUP_SIZE}"
    reasons = {name: why for row in comparison.rows for name, why in row.sheet.unknown.items()}
    for name, reason in reasons.items():
        yield f"unknown: `{name}` {reason}; its FLOPs are left out"
    if comparison.workload:
        yield from _measured(comparison)


def _measured(comparison: Comparison) -> Iterator[str]:
    work = comparison.workload
    assert work is not None
    devices = sorted({row.measured.device for row in comparison.rows if row.measured and row.measured.device})
    on = f" on the {' and '.join(devices).upper()}" if devices else ""
    rounds = f"{work.rounds} rounds" if work.rounds > 1 else "1 round"
    yield (
        f"measured{on}, random weights: prompts of {work.prompt:,} tokens, {work.steps:,} decoded; "
        f"median of {rounds} and the farthest from it"
    )
    for row in comparison.rows:
        if row.measured and row.measured.fault:
            yield f"not measured: {row.name}: {row.measured.fault}"
