"""What depends on the context, as charts: what grows is a slope, a window bends, a state is level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, floor, log2
from typing import Final

from axon_compose.analysis.cost import CostSheet, PartCost
from axon_compose.machine.units import human, operations
from axon_compose.plan import Plan
from axon_compose.registry import KV, cache_leaves
from axon_compose.report.draw._chart import Axis, Line, Lines, brief
from axon_compose.report.draw._family import FAMILIES, Family
from axon_compose.report.draw._palette import Tone
from axon_compose.report.draw._sums import CACHES, cache_bytes, parts

__all__ = ["TOKENS", "decode_chart", "grid", "memory_chart", "prefill_chart", "traffic_chart"]

#: Contexts that curves reach from and to at least, as powers of two.
LOW: Final = 8
HIGH: Final = 18
_UNITS: Final = ("", "k", "M", "G", "T")


def grid(plan: Plan, contexts: Sequence[int]) -> tuple[int, ...]:
    """Where curves have points: every power of two around the contexts of a page, and where a window is full."""
    low, high = min(LOW, floor(log2(min(contexts)))), max(HIGH, ceil(log2(max(contexts))))
    leaves = (leaf for slot in plan.slots for leaf in cache_leaves(slot))
    windows = {leaf.window for leaf in leaves if isinstance(leaf, KV) and leaf.window}
    powers = {2**power for power in range(low, high + 1)}
    return tuple(sorted(powers | {window for window in windows if 2**low < window < 2**high}))


def memory_chart(sheet: CostSheet) -> Lines:
    """Caches by kind, weights, and all together; the memory that there is as a bound."""
    costs = sheet.contexts
    lines = [_line(sheet, label, kind, [cache_bytes(cost)[kind] for cost in costs]) for kind, label in CACHES.items()]
    lines.append(_level(sheet, "weights", "quiet", sheet.weight_bytes))
    lines.append(_line(sheet, "all together", "ink", [cost.memory_bytes for cost in costs], dashed=True))
    if sheet.fit:
        there = sheet.fit.memory_bytes
        lines.append(_level(sheet, f"memory of {brief(human)(there)}", "head", there, dashed=True))
    return _over_context(sheet, "memory", "bytes", human, lines)


def traffic_chart(sheet: CostSheet) -> Lines:
    """Bytes that a step of decoding moves, and the weights in memory to compare."""
    moved = _line(sheet, "moved", "ink", [cost.moved_bytes for cost in sheet.contexts])
    return _over_context(
        sheet, "bytes moved", "bytes", human, [_level(sheet, "weights in memory", "quiet", sheet.weight_bytes), moved]
    )


def decode_chart(plan: Plan, sheet: CostSheet) -> Lines:
    """Operations of one more token of one sequence, by family and all together; no line if none is known."""
    lines = _by_family(plan, sheet, lambda part: part.decode_flops)
    whole = [cost.decode_flops for cost in sheet.contexts]
    return _over_context(sheet, "operations of a token", "FLOPs", operations, [*lines, _whole(sheet, whole)])


def prefill_chart(plan: Plan, sheet: CostSheet) -> Lines:
    """The same of a whole prompt of one sequence."""
    lines = _by_family(plan, sheet, lambda part: part.prefill_flops)
    whole = [cost.prefill_flops // sheet.batch for cost in sheet.contexts]
    return _over_context(sheet, "operations of a prompt", "FLOPs", operations, [*lines, _whole(sheet, whole)])


def _line(sheet: CostSheet, label: str, tone: Tone, values: Sequence[int], *, dashed: bool = False) -> Line:
    points = [(cost.tokens, value) for cost, value in zip(sheet.contexts, values, strict=True)]
    return Line(label, points, tone, dashed)


def _level(sheet: CostSheet, label: str, tone: Tone, value: int, *, dashed: bool = False) -> Line:
    return _line(sheet, label, tone, [value] * len(sheet.contexts), dashed=dashed)


def _by_family(plan: Plan, sheet: CostSheet, work: Callable[[PartCost], Sequence[int | None]]) -> Iterator[Line]:
    """A line for each family; components whose work is unknown are left out, which the page says."""
    sums: dict[Family, list[int]] = {}
    for family, part in parts(plan, sheet):
        before = sums.get(family, [0] * len(sheet.contexts))
        sums[family] = [so_far + (flops or 0) for so_far, flops in zip(before, work(part), strict=True)]
    for family, values in sums.items():
        yield _line(sheet, FAMILIES[family], family, values)


def _whole(sheet: CostSheet, values: Sequence[int]) -> Line:
    return _line(sheet, "all together" if sheet.exact_flops else "at least", "ink", values, dashed=True)


def _over_context(sheet: CostSheet, what: str, unit: str, words: Callable[[int], str], lines: Sequence[Line]) -> Lines:
    """A chart of the lines that have something to show."""
    up = Axis(unit, brief(words))
    return Lines(f"{sheet.name}: {what} over context", TOKENS, up, [line for line in lines if line.shown()])


def _tokens(tokens: float) -> str:
    """A power of two as people say it: `256`, `64k`."""
    step = int(log2(tokens)) // 10
    return f"{tokens / 1024**step:.0f}{_UNITS[step]}"


#: The context, to the right.
TOKENS: Final = Axis("tokens of context", _tokens, base=4)
