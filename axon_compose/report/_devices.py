"""What a model needs on several devices, for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.analysis.devices import DevicesSheet, Hardware, StrategyCost, TrainingStrategy
from axon_compose.machine.units import human, rate
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import Style
from axon_compose.report._table import table

__all__ = [
    "assumed",
    "devices_head",
    "devices_html",
    "devices_notes",
    "devices_text",
    "stored",
    "strategy_rows",
    "training_rows",
]

Rows = list[list[str]]


def devices_text(sheet: DevicesSheet, style: Style) -> str:
    """A row for each strategy, which one to take, and what is assumed."""
    tables = [table(rows, "<" + ">" * (len(rows[0]) - 1), style=style) for rows in _tables(sheet)]
    notes = [f"  {note}" for note in devices_notes(sheet)]
    parts = [[style.bold(devices_head(sheet))], *tables, notes]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def devices_html(sheet: DevicesSheet) -> str:
    """The same as HTML tables, for a notebook."""
    tables = (html_table(rows, "<" + ">" * (len(rows[0]) - 1)) for rows in _tables(sheet))
    return "\n".join([bold(devices_head(sheet)), *tables, *map(paragraph, devices_notes(sheet))])


def devices_head(sheet: DevicesSheet) -> str:
    """The model, how it is stored, and on how many devices."""
    many = "1 device" if sheet.devices == 1 else f"{sheet.devices:,} devices"
    text = f"{sheet.name} in {stored(sheet.dtype, sheet.quantize)} on {many}, {sheet.context:,} tokens"
    return text if sheet.batch == 1 else f"{text}, {sheet.batch:,} sequences"


def _tables(sheet: DevicesSheet) -> Iterator[Rows]:
    if sheet.strategies:
        yield strategy_rows(sheet)
    if sheet.training:
        yield training_rows(sheet)


def strategy_rows(sheet: DevicesSheet) -> Rows:
    """Strategies, the head first; columns without any figure are left out."""
    rows = sheet.strategies
    columns = [
        ["per device", *(row.name for row in rows)],
        ["layers", *map(_layers, rows)],
        ["weights", *(human(row.weight_bytes) for row in rows)],
        ["caches", *(human(row.cache_bytes) for row in rows)],
        ["in between", *(human(row.activation_bytes) for row in rows)],
        ["together", *(human(row.memory_bytes) for row in rows)],
    ]
    if sheet.hardware.memory is not None:
        columns.append([f"fits {human(sheet.hardware.memory)}", *(_yes(row.fits) for row in rows)])
    columns += [
        ["sent per token", *(human(round(row.sent_per_token)) for row in rows)],
        ["per prompt token", *(human(round(row.sent_per_prompt_token)) for row in rows)],
        ["messages", *(f"{row.messages_per_token:,}" for row in rows)],
        ["tokens/s at most", *(rate(row.one) for row in rows)],
    ]
    if sheet.batch > 1:
        columns.append([f"of {sheet.batch:,} sequences", *(rate(row.together) for row in rows)])
    return [list(cells) for cells in zip(*columns, strict=True)]


def training_rows(sheet: DevicesSheet) -> Rows:
    """Ways to train, the head first."""
    head = ["training step", "weights", "moments", "gradients", "gathered", "activations", "together"]
    there = sheet.hardware.memory
    if there is not None:
        head.append(f"fits {human(there)}")
    return [[*head, "sent per step"], *(_trained(row, fit=there is not None) for row in sheet.training)]


def _trained(row: TrainingStrategy, *, fit: bool) -> list[str]:
    sizes = [row.weight_bytes, row.optimizer_bytes, row.gradient_bytes, row.gathered_bytes]
    said = [*map(human, sizes), f"about {human(row.activation_bytes)}", human(row.memory_bytes)]
    return [row.name, *said, *([_yes(row.fits)] if fit else []), human(round(row.sent_per_step))]


def _layers(row: StrategyCost) -> str:
    least, most = min(row.layers), max(row.layers)
    return f"{most}" if least == most else f"{least} to {most}"


def _yes(fits: bool | None) -> str:
    return "yes" if fits else "no"


def devices_notes(sheet: DevicesSheet) -> Iterator[str]:
    """Which strategy to take and why, what cannot be done, what stays whole, and what is assumed."""
    yield f"recommended: {sheet.recommended}, {sheet.reason}" if sheet.recommended else f"recommended: {sheet.reason}"
    if sheet.training:
        yield f"recommended for training: {sheet.training_reason}"
    for row in sheet.impossible:
        yield f"not possible: {row.layout.name}: {row.fault.message} ({row.fault.code})"
    yield from _whole(sheet)
    yield f"assumed of each device: {assumed(sheet.hardware)}"


def _whole(sheet: DevicesSheet) -> Iterator[str]:
    """Components that tensor groups do not share, each reason with the strategies that it is one of."""
    groups = [row for row in sheet.strategies if row.layout.tensor > 1]
    where: dict[tuple[str, str], list[str]] = {}
    for row in groups:
        for found in row.whole.items():
            where.setdefault(found, []).append(row.name)
    for (name, reason), names in where.items():
        of = "" if len(names) == len(groups) else f" of {', '.join(names)}"
        yield f"whole on every device{of}: `{name}`: {reason}"


def stored(dtype: str, bits: int | None) -> str:
    """In what weights are stored, as text."""
    return dtype if bits is None else f"{bits} bits and {dtype}"


def assumed(hardware: Hardware) -> str:
    """The speeds, as text."""
    inside = ""
    if hardware.machine_link is not None:
        inside = f" and {hardware.machine_link / 1e9:,.4g} GB/s between the {hardware.machine:,} of a machine"
    return (
        f"memory moves {hardware.bandwidth / 1e9:,.4g} GB/s, a link {hardware.link / 1e9:,.4g} GB/s each way{inside}, "
        f"a message takes {hardware.latency * 1e6:,.4g} µs"
    )
