"""A page about one model: its picture, its layers, where the memory goes, what a context costs. It needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from axon_compose.analysis.cost import CONTEXTS, CostSheet, PartCost, cost
from axon_compose.analysis.devices import Hardware, SimulationSheet, spread
from axon_compose.machine.units import count, human, rate
from axon_compose.plan import Branch, Layer, Plan, layer_ranges, total_parameters
from axon_compose.report.draw._axes import brief
from axon_compose.report.draw._box import type_name
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._curves import decode_chart, grid, memory_chart, prefill_chart, traffic_chart
from axon_compose.report.draw._devices import devices_section
from axon_compose.report.draw._family import Family, kept_words
from axon_compose.report.draw._fold import cards, fold
from axon_compose.report.draw._html import chart, document, figure, note, quiet, section, table
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._picture import picture
from axon_compose.report.draw._schedule import simulation_section
from axon_compose.report.draw._spent import spent
from axon_compose.report.draw._sums import facts, parts
from axon_compose.report.draw._words import share

__all__ = ["page"]

#: Bytes per second for which a page says how fast decoding may be, unless it is asked for another number: those of a
#: laptop, of a large one, and of a workstation.
BANDWIDTHS: Final = (100e9, 400e9, 800e9)


def page(
    plan: Plan,
    *,
    context: Iterable[int] = CONTEXTS,
    dtype: str = "bfloat16",
    batch: int = 1,
    quantize: int | None = None,
    memory: int | None = None,
    bandwidth: float | None = None,
    devices: int | None = None,
    hardware: Hardware | None = None,
    simulation: SimulationSheet | None = None,
) -> str:
    """A page of HTML that holds everything it shows.

    Args:
        plan: The model.
        context: Tokens of each sequence, at which tables look.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
        batch: Sequences that run together.
        quantize: Bits of quantised weights; not quantised unless given.
        memory: Bytes that there are, as a line in the chart: does it fit, and how far?
        bandwidth: Bytes that memory moves in a second; a few usual ones unless given.
        devices: Show what it needs on this number of devices too.
        hardware: What is assumed of each device, see `analysis.devices.Hardware`.
        simulation: Show these schedules too.

    Raises:
        ValueError: If a number is out of its range.
    """
    at = tuple(sorted(set(context)))
    sheet, curves = (
        cost(plan, context=contexts, dtype=dtype, batch=batch, quantize=quantize, memory=memory)
        for contexts in (at, grid(plan, at))
    )
    stack = section("The stack", figure(lambda width: picture(plan, width=width, inside=True)))
    charts = _charts(plan, sheet, curves, BANDWIDTHS if bandwidth is None else (bandwidth,))
    stored: dict[str, Any] = {"dtype": dtype, "batch": batch, "quantize": quantize, "context": max(at)}
    several = [] if devices is None else [devices_section(spread(plan, devices, hardware=hardware, **stored))]
    several += [] if simulation is None else [simulation_section(simulation)]
    columns = element("div", stack, *_tables(plan, sheet), *charts, class_="columns")
    return document(plan.name, *_lead(plan, sheet), columns, *several, element("footer", text(_terms(sheet))))


# Totals.


def _lead(plan: Plan, sheet: CostSheet) -> Iterator[str]:
    yield element("h1", text(plan.name))
    yield element("p", text(" · ".join(facts(plan))))
    shown = [("Parameters", count(sheet.parameters)), ("Active per token", count(sheet.active_parameters))]
    shown.append((f"Weights, {_stored(sheet)}", human(sheet.weight_bytes)))
    shown += [(f"Caches, {cost.tokens:,} tokens", human(cost.cache_bytes)) for cost in sheet.contexts]
    if sheet.fit:
        shown.append((f"Longest context in {brief(human)(sheet.fit.memory_bytes)}", _longest(sheet.fit.longest)))
    tiles = [element("div", element("dt", text(name)), element("dd", text(value))) for name, value in shown]
    yield element("dl", *tiles, class_="totals")


def _stored(sheet: CostSheet) -> str:
    return f"{sheet.quantize} bits" if sheet.quantized_parameters else sheet.dtype


def _longest(tokens: int | None) -> str:
    return "any" if tokens is None else f"{tokens:,} tokens" if tokens else "does not fit"


def _terms(sheet: CostSheet) -> str:
    """What the numbers hold and what they do not."""
    who = "one sequence" if sheet.batch == 1 else f"{sheet.batch:,} sequences together"
    return (
        f"Caches are those of {who} in {sheet.dtype}, counted in elements. "
        "What a pass needs in between comes on top of weights and caches."
    )


# Charts.


def _charts(plan: Plan, sheet: CostSheet, curves: CostSheet, speeds: tuple[float, ...]) -> Iterator[str]:
    yield section("Memory over context", chart(memory_chart(curves)))
    yield section("Decoding: bytes moved", chart(traffic_chart(curves)), _speeds(sheet, speeds))
    unknown = [note(f"{name} {reason}: it is left out.") for name, reason in sheet.unknown.items()]
    for title, drawn in (
        ("Decoding: operations of one token", decode_chart(plan, curves)),
        ("Prefill: operations of a whole prompt", prefill_chart(plan, curves)),
    ):
        yield section(title, *((chart(drawn),) if drawn.lines else ()), *unknown)


def _speeds(sheet: CostSheet, speeds: tuple[float, ...]) -> str:
    """How fast decoding may be at most, if moving bytes alone takes time."""
    step = "token" if sheet.batch == 1 else "step"
    head = ["Context", f"Moved per {step}", *(f"at {speed / 1e9:g} GB/s" for speed in speeds)]
    rows = []
    for at in sheet.contexts:
        most = (rate(speed * sheet.batch / at.moved_bytes) for speed in speeds)
        rows.append([f"{at.tokens:,}", human(at.moved_bytes), *most])
    return table(head, rows, 1 + len(speeds)) + note("Upper bound on tokens per second from memory bandwidth.")


# Tables.


def _tables(plan: Plan, sheet: CostSheet) -> Iterator[str]:
    yield section("Layers", _layers(plan))
    yield section("Parameters by component", _parts(plan, sheet))
    yield section("Where the memory goes", *spent(plan, sheet))


def _layers(plan: Plan) -> str:
    rows = [["embedding", text(type_name(plan.embedding)), f"{plan.embedding.size:,}"]]
    for card in cards(fold(plan)):
        layer, times = card.layer, len(card.layers)
        numbers = layer_ranges(layer.index for layer in card.layers)
        size = f"{layer.size:,}" if times == 1 else f"{times} × {layer.size:,}"
        if layer.owner is not None:
            size = f"of layer {layer.owner}"
        kept = "; ".join(filter(None, (", ".join(kept_words(use, plan)) for use in layer.uses())))
        rows.append([text(numbers), text(_components(layer)) + quiet(kept), text(size)])
    if plan.residual:
        rows.insert(1, ["residual", text(type_name(plan.residual)), f"{plan.residual.size:,}"])
    if plan.final_norm:
        rows.append(["norm", text(type_name(plan.final_norm)), f"{plan.final_norm.size:,}"])
    rows.append(["head", text(type_name(plan.head)), f"{plan.head.size:,}" if plan.head.size else "tied"])
    last = ["all", "", f"{total_parameters(plan):,}"]
    return table(["Layers", "Components and cache", "Parameters"], rows, 1, last)


def _components(layer: Layer) -> str:
    return " → ".join(_branch(branch) for branch in layer.branches)


def _branch(branch: Branch) -> str:
    if branch.add:
        return f"+ {branch.add}"
    return " ∥ ".join(member.use.name for member in branch.members)


def _parts(plan: Plan, sheet: CostSheet) -> str:
    total = sheet.parameters
    rows = [
        [_named(part) + _meter(kind, part, total), f"{part.parameters:,}", text(share(part.parameters, total))]
        for kind, part in parts(plan, sheet)
    ]
    return table(["Component", "Parameters", "Share"], rows, 2, ["all", f"{total:,}", "100 %"])


def _named(part: PartCost) -> str:
    type_ = part.type.removeprefix("core/")
    kind = [type_] if type_ != part.name else []
    places = [f"{part.uses} places"] if part.uses > 1 else []
    return text(part.name) + quiet(", ".join(kind + places))


def _meter(kind: Family, part: PartCost, total: int) -> str:
    """A bar as long as the share of the component."""
    canvas = Canvas()
    canvas.rect(0, 0, 200, 8, "track")
    canvas.rect(0, 0, 200 * part.parameters / total, 8, f"{kind}-bar")
    return element(
        "svg", *canvas.shapes, class_="meter", viewBox="0 0 200 8", preserveAspectRatio="none", aria_hidden="true"
    )
