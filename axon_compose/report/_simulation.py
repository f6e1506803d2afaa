"""Simulated schedules of a cluster, for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.analysis.devices import Simulated, SimulationSheet
from axon_compose.machine.units import human, operations, rate
from axon_compose.report._devices import assumed, stored
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import Style
from axon_compose.report._table import table

__all__ = [
    "seconds_text",
    "simulation_head",
    "simulation_html",
    "simulation_notes",
    "simulation_rows",
    "simulation_text",
]


def simulation_text(sheet: SimulationSheet, style: Style) -> str:
    """A row for each layout, the fastest first, and what is assumed."""
    rows = simulation_rows(sheet)
    lines = table(rows, "<" + ">" * (len(rows[0]) - 1), style=style)
    parts = [[style.bold(simulation_head(sheet))], lines, [f"  {note}" for note in simulation_notes(sheet)]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def simulation_html(sheet: SimulationSheet) -> str:
    """The same as an HTML table, for a notebook."""
    rows = simulation_rows(sheet)
    drawn = html_table(rows, "<" + ">" * (len(rows[0]) - 1))
    return "\n".join([bold(simulation_head(sheet)), drawn, *map(paragraph, simulation_notes(sheet))])


def simulation_head(sheet: SimulationSheet) -> str:
    """The model, what it does, and on how many devices."""
    what = "a training step" if sheet.training else "decoding"
    return (
        f"{sheet.name} in {stored(sheet.dtype, sheet.quantize)}, {what} simulated on {sheet.devices:,} devices: "
        f"{sheet.batch:,} sequence{'s' * (sheet.batch > 1)} of {sheet.context:,} tokens"
    )


def simulation_rows(sheet: SimulationSheet) -> list[list[str]]:
    """Layouts, the head first; parts of the time that nothing goes into are left out."""
    runs = sheet.runs
    columns = [
        ["layout", *(row.name for row in runs)],
        ["micro-batches" if sheet.training else "groups", *map(_micro, runs)],
        ["per device", *(human(row.memory_bytes) for row in runs)],
    ]
    if sheet.hardware.memory is not None:
        columns.append([f"fits {human(sheet.hardware.memory)}", *("yes" if row.fits else "no" for row in runs)])
    columns.append(["step" if sheet.training else "per token", *(seconds_text(row.seconds) for row in runs)])
    columns.append(["tokens/s", *(rate(row.tokens_per_second) for row in runs)])
    for name in ("computing", "bubble", "tensor", "experts", "gradients"):
        parts = [getattr(row, name) for row in runs]
        if any(part >= 0.0005 for part in parts):
            columns.append([name, *(f"{part:.1%}" for part in parts)])
    return [list(cells) for cells in zip(*columns, strict=True)]


def _micro(row: Simulated) -> str:
    return f"{row.micro:,} of {row.sequences:,}"


def seconds_text(seconds: float) -> str:
    """To three digits: `5.33 s`, `77.2 ms`."""
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{seconds * 1e3:,.3g} ms"


def simulation_notes(sheet: SimulationSheet) -> Iterator[str]:
    """What the parts of the time are, what cannot be done, and what is assumed."""
    if sheet.training:
        sums = "while others are computed" if sheet.overlap else "after the last backward pass"
        yield f"schedule {sheet.best.schedule}; gradients are summed {sums}"
    else:
        yield "decoding: groups of sequences go round the stages; tokens per second once the pipeline is full"
    for reason, number in sheet.impossible.items():
        yield f"not possible: {number} layout{'s' * (number > 1)}: {reason}"
    yield f"assumed of each device: {assumed(sheet.hardware)}, {operations(round(sheet.hardware.flops))}FLOP/s"
