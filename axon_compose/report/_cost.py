"""A cost sheet for the terminal, and for a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from axon_compose.analysis.cost import GROUP_SIZE, ContextCost, CostSheet, LayerCost, PartCost
from axon_compose.machine.units import count, human, operations, rate
from axon_compose.plan import layer_ranges
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import Style
from axon_compose.report._table import table

__all__ = ["cost_html", "cost_text"]

Rows = list[list[str]]


def cost_text(sheet: CostSheet, style: Style, *, layers: bool = False) -> str:
    """The sheet as text: by component, by context, and whether it fits; by layer if asked for."""
    parts = [[style.bold(_head(sheet))]]
    for rows, align in _tables(sheet, layers=layers):
        parts.append(table(rows, align, style=style))
    parts.append(list(_notes(sheet)))
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def cost_html(sheet: CostSheet) -> str:
    """The same as HTML tables, for a notebook."""
    tables = (html_table(rows, align) for rows, align in _tables(sheet, layers=False))
    return "\n".join([bold(_head(sheet)), *tables, *map(paragraph, _notes(sheet))])


def _head(sheet: CostSheet) -> str:
    text = f"{sheet.name}: {count(sheet.parameters)} parameters"
    if sheet.active_parameters != sheet.parameters:
        text += f", {count(sheet.active_parameters)} active per token"
    text += f", {human(sheet.weight_bytes)} in {sheet.stored}"
    return text if sheet.batch == 1 else f"{text}, {sheet.batch:,} sequences"


def _tables(sheet: CostSheet, *, layers: bool) -> Iterator[tuple[Rows, str]]:
    yield _parts(sheet), "<<>>>>>"
    if layers:
        yield _layers(sheet), "<<>>>>>"
    columns = _contexts(sheet)
    rows = [list(row) for row in zip(*columns, strict=True)]
    yield rows, ">" * len(columns)


def _parts(sheet: CostSheet) -> Rows:
    first = sheet.contexts[0].tokens
    rows = [["component", "type", "uses", "parameters", "active", "weights", f"FLOPs per token at {first:,}"]]
    rows += [_part(part) for part in sheet.parts]
    total = [f"{sheet.parameters:,}", f"{sheet.active_parameters:,}", human(sheet.weight_bytes)]
    return [*rows, ["total", "", "", *total, _flops(sheet, sheet.contexts[0].decode_flops)]]


def _part(part: PartCost) -> list[str]:
    sizes = [f"{part.uses:,}", f"{part.parameters:,}", f"{part.active:,}", human(part.weight_bytes)]
    return [part.name, part.type.removeprefix("core/"), *sizes, _known(part.decode_flops[0])]


def _layers(sheet: CostSheet) -> Rows:
    """Neighbours that cost the same stand in one row."""
    first = sheet.contexts[0].tokens
    rows = [["layers", "block", "parameters", "active", "weights", f"cache at {first:,}", "FLOPs per token"]]
    for _, group in groupby(sheet.layers, key=_likeness):
        members = list(group)
        layer = members[0]
        number = layer_ranges(member.index for member in members)
        sizes = [f"{layer.parameters:,}", f"{layer.active:,}", human(layer.weight_bytes), human(layer.cache_bytes[0])]
        rows.append([number, layer.block, *sizes, _known(layer.decode_flops[0])])
    return rows


def _likeness(layer: LayerCost) -> tuple[object, ...]:
    return layer.block, layer.parameters, layer.active, layer.weight_bytes, layer.cache_bytes, layer.decode_flops


def _contexts(sheet: CostSheet) -> list[list[str]]:
    """Columns of what depends on the context; columns without any figure are left out."""
    costs = sheet.contexts

    def column(title: str, cells: Sequence[str]) -> list[str]:
        return [title, *cells]

    columns = [column("context", [f"{cost.tokens:,}" for cost in costs])]
    for title, name in (("growing caches", "growing"), ("windows", "window"), ("states", "state")):
        sizes = [getattr(cost, f"{name}_bytes") for cost in costs]
        if any(sizes):
            columns.append(column(title, list(map(human, sizes))))
    columns += [
        column("with weights", [human(cost.memory_bytes) for cost in costs]),
        column("prefill FLOPs", [_flops(sheet, cost.prefill_flops) for cost in costs]),
        column("FLOPs per token", [_flops(sheet, cost.decode_flops) for cost in costs]),
        column("moved per step", [human(cost.moved_bytes) for cost in costs]),
    ]
    if costs[0].tokens_per_second is not None:
        columns.append(column("tokens/s at most", [rate(cost.tokens_per_second or 0.0) for cost in costs]))
    if costs[0].training is not None:
        columns.append(column("training", [f"about {human(cost.needed_bytes)}" for cost in costs]))
    return columns


def _flops(sheet: CostSheet, number: int) -> str:
    """A total: a lower bound if some component is unknown."""
    if sheet.exact_flops:
        return operations(number)
    return f"at least {operations(number)}" if number else "unknown"


def _known(number: int | None) -> str:
    return "unknown" if number is None else operations(number)


def _notes(sheet: CostSheet) -> Iterator[str]:
    if sheet.quantize and not sheet.quantized_parameters:
        yield f"  quantised: nothing, since no matrix has rows of a multiple of {GROUP_SIZE}"
    for name, reason in sheet.unknown.items():
        yield f"  unknown: `{name}` {reason}; totals of FLOPs are a lower bound"
    for name, fault in sheet.faulty.items():
        yield f"  fault: `{name}` {fault}"
    last = sheet.contexts[-1]
    if last.training:
        kept = last.training
        yield (
            f"  training: {human(kept.weights)} weights, {human(kept.optimizer)} moments of Adam, at {last.tokens:,} "
            f"tokens about {human(kept.activations)} activations and {human(kept.in_flight)} in flight"
            + (f"; computed again by {kept.segment} layer{'s' * (kept.segment > 1)}" if kept.segment else "")
        )
        for name, reason in sheet.estimated.items():
            yield f"  estimated: `{name}` {reason}; its activations are an estimate from shapes"
    if sheet.fit:
        yield from _fit(sheet, sheet.contexts)


def _fit(sheet: CostSheet, costs: Sequence[ContextCost]) -> Iterator[str]:
    assert sheet.fit is not None
    there = human(sheet.fit.memory_bytes)
    what = "a training step needs" if costs[0].training else "weights and caches need"
    for cost, fits in zip(costs, sheet.fit.fits, strict=True):
        verdict = "fits" if fits else "does not fit"
        yield f"  {cost.tokens:,} tokens: {verdict}, {what} {human(cost.needed_bytes)} of {there}"
    match sheet.fit.longest:
        case None:
            yield f"  longest context in {there}: any"
        case 0:
            yield f"  longest context in {there}: none"
        case longest:
            yield f"  longest context in {there}: {longest:,} tokens"
