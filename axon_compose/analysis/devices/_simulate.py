"""Which layouts are worth simulating, and the sheet of those that were."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from axon_compose.analysis.cost import Storage, check_sequences
from axon_compose.analysis.devices._hardware import Hardware, check_devices, nothing_fits
from axon_compose.analysis.devices._layout import Layout, layouts
from axon_compose.analysis.devices._measure import CONTEXT
from axon_compose.analysis.devices._schedule import SCHEDULES, Schedule
from axon_compose.analysis.devices._sheet import Assumed
from axon_compose.analysis.devices._simulation import Candidate, Simulated, simulated
from axon_compose.analysis.devices._stage_times import StageTimes
from axon_compose.analysis.devices._strategies import Spreads
from axon_compose.diagnostics import Diagnostic, Refusal
from axon_compose.notebook import Shown
from axon_compose.plan import Plan

__all__ = ["SHOWN", "SimulationSheet", "simulate"]

#: Layouts that are simulated and shown.
SHOWN: Final = 8
_LESS: Final = "take more devices, fewer tokens or sequences, or compute layers again with `--training --segment 1`"
#: Micro-batches that are tried, as multiples of the number of stages, and jobs of a schedule at most.
_MULTIPLES: Final = (1, 2, 4, 8, 16)
_MOST_JOBS: Final = 60_000
#: Micro-batches times stages at most where somebody names a number.
_LONGEST: Final = 200_000


@dataclass(frozen=True)
class SimulationSheet(Assumed, Shown):
    """Schedules of a cluster.

    Attributes:
        training: Whether a training step was simulated, or decoding.
        overlap: Whether gradients are summed while others are computed.
        runs: Layouts, the fastest that fits first.
        impossible: Why others cannot be: reasons, each with the number of layouts.
    """

    training: bool
    overlap: bool
    runs: tuple[Simulated, ...]
    impossible: dict[str, int]

    def __repr__(self) -> str:
        return f"<SimulationSheet {self.name}: {self.devices} devices, {self.runs[0].name}>"

    @property
    def best(self) -> Simulated:
        """The fastest that fits, or that which needs least memory."""
        return self.runs[0]

    @property
    def faults(self) -> tuple[Diagnostic, ...]:
        """A warning where nothing fits."""
        if self.best.fits is not False:
            return ()
        least = self.best.name, self.best.memory_bytes
        return (nothing_fits(self.name, self.devices, self.hardware, least, _LESS),)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data, the times of single jobs left out."""
        data = self.assumed() | {name: getattr(self, name) for name in ("training", "overlap", "impossible")}
        return data | {"runs": [_written(row) for row in self.runs]}


def _written(row: Simulated) -> dict[str, Any]:
    data = {name: value for name, value in vars(row).items() if name != "timeline"}
    return data | {"name": row.name, "layout": asdict(row.layout)}


def simulate(
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
    layout: Layout | None = None,
    schedule: Schedule = "1f1b",
    micro: int | None = None,
    overlap: bool = True,
) -> SimulationSheet:
    """Simulate training steps, or decoding, on a cluster of devices; nothing is built.

    Args:
        plan: The model.
        devices: How many there are, all alike.
        hardware: What is assumed of each.
        context: Tokens of each sequence.
        dtype: Of weights, caches, gradients, moments and what is sent.
        batch: Sequences of a step, or that are decoded, all devices together.
        quantize: Bits of quantised weights; for decoding alone.
        training: A training step, or decoding.
        segment: Layers that a backward pass computes again at a time; saves all unless given.
        layout: Look at this division alone, at all unless given.
        schedule: Of a training step.
        micro: Micro-batches of each replica, or groups of its sequences under way; the fastest number unless given.
        overlap: Whether gradients are summed while others are still computed.

    Raises:
        Refusal: `AX403`, no such number of devices or layout; `AX980` or `AX990`, the model cannot be divided
            so.
        ValueError: If another number is out of its range.
    """
    hardware = hardware or Hardware()
    check_devices(devices)
    check_sequences((context,), batch)
    if schedule not in SCHEDULES:
        raise ValueError(f"`schedule` must be one of {', '.join(SCHEDULES)}")
    if micro is not None and micro < 1:
        raise ValueError("`micro` must be 1 or more")
    if segment is not None and segment < 0:
        raise ValueError("`segment` must not be negative")
    if layout and layout.devices != devices:
        raise _not_so_many(layout, devices)
    spreads = Spreads(plan, Storage(dtype, None if training else quantize), context)
    impossible: dict[str, int] = {}
    found = []
    for each in [layout] if layout else layouts(devices):
        try:
            _check_batch(each, batch, micro)
            found.append(_best(spreads, each, hardware, batch, schedule if training else None, segment, micro))
        except Refusal as refusal:
            if layout or devices == 1:
                raise
            impossible[refusal.message] = impossible.get(refusal.message, 0) + 1
    if not found:
        raise Refusal("AX403", f"`{plan.name}` runs in no way on {devices:,} devices", _MORE, list(impossible))
    chosen = sorted(found, key=_rank)[:SHOWN]
    runs = sorted((simulated(each, overlap=overlap) for each in chosen), key=_order)
    return SimulationSheet(
        name=plan.name,
        devices=devices,
        hardware=hardware,
        dtype=dtype,
        quantize=spreads.storage.bits,
        batch=batch,
        context=context,
        training=training,
        overlap=overlap,
        runs=tuple(runs),
        impossible=impossible,
    )


_MORE: Final = "replicas need sequences: give as many as there are devices, or a multiple, with `--batch`"


def _not_so_many(layout: Layout, devices: int) -> Refusal:
    sizes = " x ".join(map(str, vars(layout).values()))
    message = f"a layout of {sizes} is one of {layout.devices:,} devices, not of {devices:,}"
    return Refusal("AX403", message, f"`--devices {layout.devices}`, or other numbers: tensor x pipeline x data")


def _check_batch(layout: Layout, batch: int, micro: int | None) -> None:
    """Replicas and micro-batches get equal shares, and there are not too many of them to look at each."""
    if (micro or 1) * layout.pipeline > _LONGEST:
        message = f"{micro or 1:,} micro-batches in {layout.pipeline:,} stages are too many to simulate"
        raise Refusal("AX403", message, "take fewer with `--micro-batches`, or leave it out")
    parts = layout.data * (micro or 1)
    if batch % parts:
        shares = "replicas" + (f" of {micro:,} micro-batches" if micro else "")
        raise Refusal("AX403", f"a batch of {batch:,} is no multiple of the {shares}", _MORE)


def _best(
    spreads: Spreads,
    layout: Layout,
    hardware: Hardware,
    batch: int,
    schedule: Schedule | None,
    segment: int | None,
    micro: int | None,
) -> Candidate:
    """The number of micro-batches, and the place of experts, that are estimated to be fastest."""
    spread = spreads.spread(layout)
    each = batch // layout.data
    numbers = [micro] if micro else _numbers(each, layout.pipeline)
    by_rank = [False, *([True] if _spreads_experts(spreads, layout) else [])]
    candidates = [
        Candidate(
            layout,
            number,
            StageTimes(spread, layout, hardware, each // number, by_rank=rank, recomputed=bool(segment)),
            schedule,
            segment,
        )
        for number in numbers
        for rank in by_rank
    ]
    return min(candidates, key=_rank)


def _numbers(sequences: int, stages: int) -> list[int]:
    """Numbers of micro-batches that divide sequences, from a few to many for each stage."""
    wanted = [multiple * stages for multiple in _MULTIPLES if multiple * stages**2 <= _MOST_JOBS]
    return sorted({_divisor(sequences, most) for most in [1, *wanted]})


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is not above a number."""
    return next(n for n in range(min(most, number), 0, -1) if number % n == 0)


def _spreads_experts(spreads: Spreads, layout: Layout) -> bool:
    """Whether replicas can share the experts of every layer that has some."""
    pieces = spreads.pieces(layout.tensor)
    numbers = [experts.number for piece in pieces.layers for experts in pieces.experts(piece)]
    return layout.data > 1 and bool(numbers) and not any(number % layout.data for number in numbers)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    """What fits first, then what is estimated to be fast; of what does not fit, what needs least."""
    there = candidate.times.hardware.memory
    if there is not None and (needed := candidate.memory_bytes()) > there:
        return True, needed
    return False, candidate.estimate() / candidate.micro / candidate.times.sequences / candidate.layout.data


def _order(row: Simulated) -> tuple[bool, float]:
    return row.fits is False, -row.tokens_per_second if row.fits is not False else row.memory_bytes
