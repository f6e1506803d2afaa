"""A plan to the sheet of several devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from axon_compose.analysis.cost import Storage, check_sequences
from axon_compose.analysis.devices._hardware import MOST_DEVICES, Hardware, check_devices, nothing_fits
from axon_compose.analysis.devices._layout import Layout, strategies
from axon_compose.analysis.devices._recommend import recommend, recommend_training
from axon_compose.analysis.devices._sheet import DevicesSheet, Impossible, StrategyCost
from axon_compose.analysis.devices._strategies import Spreads
from axon_compose.analysis.devices._training import training_strategies
from axon_compose.diagnostics import Diagnostic, Refusal
from axon_compose.plan import Plan

__all__ = ["CONTEXT", "spread"]

#: Tokens of each sequence unless others are named.
CONTEXT: Final = 4096


def spread(
    plan: Plan,
    devices: int,
    *,
    hardware: Hardware | None = None,
    context: int = CONTEXT,
    dtype: str = "bfloat16",
    batch: int = 1,
    quantize: int | None = None,
    training: bool = False,
    segment: int | None = None,
) -> DevicesSheet:
    """What a model needs on several devices, by every strategy; nothing is built.

    Args:
        plan: The model.
        devices: How many there are, all alike.
        hardware: What is assumed of each; see `Hardware` for what is assumed unless it is given.
        context: Tokens of each sequence.
        dtype: Of weights, caches and what is sent: `float32`, `bfloat16` or `float16`.
        batch: Sequences, all devices together.
        quantize: Bits of quantised weights; not quantised unless given.
        training: Count the memory of a training step too.
        segment: As of `cost`, with `training`.

    Raises:
        Refusal: `AX403`, the number of devices is out of its range.
        ValueError: If another number is out of its range.
    """
    hardware = hardware or Hardware()
    check_devices(devices)
    check_sequences((context,), batch)
    spreads = Spreads(plan, Storage(dtype, quantize), context)
    rows, impossible = counted(spreads, strategies(devices), batch, hardware)
    name, reason = recommend(rows, batch, hardware.memory)
    step = training_strategies(plan, devices, context=context, dtype=dtype, batch=batch, segment=segment)
    ways = tuple(replace(way, fits=hardware.fits(way.memory_bytes)) for way in (step if training else ()))
    return DevicesSheet(
        name=plan.name,
        devices=devices,
        hardware=hardware,
        dtype=dtype,
        quantize=quantize,
        batch=batch,
        context=context,
        strategies=tuple(rows),
        impossible=tuple(impossible),
        recommended=name,
        reason=reason,
        training=ways,
        training_reason=recommend_training(ways, hardware.memory),
        faults=() if name else (_nothing_fits(spreads, rows, batch, hardware),),
    )


def counted(
    spreads: Spreads, layouts: Iterable[Layout], batch: int, hardware: Hardware
) -> tuple[list[StrategyCost], list[Impossible]]:
    """What each way costs, or why it cannot be gone."""
    rows, impossible = [], []
    for layout in layouts:
        try:
            rows.append(spreads.cost(layout, batch, hardware))
        except Refusal as refusal:
            impossible.append(Impossible(layout, refusal.diagnostic))
    return rows, impossible


def _nothing_fits(spreads: Spreads, rows: list[StrategyCost], batch: int, hardware: Hardware) -> Diagnostic:
    """A warning, with the least number of devices that is enough, of twice, four times as many and so on."""
    devices = rows[0].layout.devices
    least = min(rows, key=lambda row: row.memory_bytes)
    enough = _enough(spreads, devices, batch, hardware)
    return nothing_fits(spreads.plan.name, devices, hardware, (least.name, least.memory_bytes), enough)


#: How often the number of devices is doubled, in search of one that is enough.
_DOUBLINGS: Final = 6


def _enough(spreads: Spreads, devices: int, batch: int, hardware: Hardware) -> str:
    for _ in range(_DOUBLINGS):
        devices *= 2
        if devices > MOST_DEVICES:
            break
        rows, _ = counted(spreads, strategies(devices), batch, hardware)
        fitting = [row.name for row in rows if row.fits]
        if fitting:
            return f"`--devices {devices}` is enough, by {fitting[0]}"
    return "store it in fewer bits with `--quantize`, or ask for fewer tokens or sequences"
