"""The columns of a comparison: name, title, the figure for a row, and its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from axon_compose.analysis.comparison._row import Row
from axon_compose.analysis.cost import ContextCost, CostSheet
from axon_compose.analysis.devices import StrategyCost
from axon_compose.analysis.measurement import Measurement, Spread
from axon_compose.machine.units import count, human, operations, rate

__all__ = ["Column", "make_columns"]

Value: TypeAlias = str | float | None


@dataclass(frozen=True)
class Column:
    """One figure of every model.

    Attributes:
        name: Its name for `sort`.
        title: Its heading, two lines; the second may be empty.
        value: The figure for a row, or None.
        text: The figure as text.
        more_is_better: Whether sorting puts the largest first.
    """

    name: str
    title: tuple[str, str]
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    more_is_better: bool = False

    def key(self, row: Row) -> tuple[bool, str, float]:
        """Sort key of rows that have a figure; names ignore case."""
        value = self.value(row)
        return (False, value.casefold(), 0.0) if isinstance(value, str) else (True, "", value or 0.0)


def make_columns(
    contexts: tuple[int, ...],
    *,
    memory: int | None,
    bandwidth: float | None,
    measured: bool,
    devices: int | None = None,
) -> tuple[Column, ...]:
    """The columns that a comparison has figures for: costs, then fit, then speed.

    Args:
        contexts: Sequence lengths in tokens, each with a column for its cache.
        memory: Bytes available, or None for no columns of fit.
        bandwidth: Memory bandwidth in bytes per second, or None for no bound on speed.
        measured: Whether rows were measured.
        devices: Number of devices, or None for no columns of several.
    """
    columns = list(_costs(contexts))
    if memory is not None:
        columns += _fit(memory)
    if bandwidth is not None:
        columns.append(Column("tokens-per-second", ("tokens/s", "at most"), _bound, _bound_text, more_is_better=True))
    if devices is not None:
        columns += _spread(devices)
    if measured:
        columns += _measured()
    return tuple(columns)


def _costs(contexts: tuple[int, ...]) -> Iterator[Column]:
    yield Column("name", ("model", ""), lambda row: row.name, lambda row: row.name)
    for name, title, attribute, write in (
        ("parameters", "parameters", "parameters", count),
        ("active", "active", "active_parameters", count),
        ("weights", "weights", "weight_bytes", human),
    ):
        yield _of_sheet(name, title, attribute, write)
    for at, tokens in enumerate(contexts):
        yield _cache(at, tokens)
    longest = f"{max(contexts):,}"
    yield Column(
        "memory",
        ("memory at", longest),
        lambda row: row.longest_context.memory_bytes,
        lambda row: human(row.longest_context.memory_bytes),
    )
    yield _flops("decode-flops", "decode", lambda row: row.longest_context.decode_flops)
    yield _flops("prefill-flops", "prefill", _prefill)


def _of_sheet(name: str, title: str, attribute: str, write: Callable[[int], str]) -> Column:
    def value(row: Row) -> int:
        found: int = getattr(row.sheet, attribute)
        return found

    return Column(name, (title, ""), value, lambda row: write(value(row)))


def _cache(at: int, tokens: int) -> Column:
    def value(row: Row) -> int:
        return row.sheet.contexts[at].cache_bytes

    return Column(f"cache-{tokens}", ("cache at", f"{tokens:,}"), value, lambda row: human(value(row)))


def _prefill(row: Row) -> int:
    """Prefill FLOPs per prompt token."""
    cost: ContextCost = row.longest_context
    return round(cost.prefill_flops / (row.sheet.batch * cost.tokens))


def _flops(name: str, title: str, ask: Callable[[Row], int]) -> Column:
    def value(row: Row) -> int | None:
        return ask(row) or (0 if row.sheet.exact_flops else None)

    def text(row: Row) -> str:
        found, sheet = value(row), row.sheet
        return "unknown" if found is None else _at_least(sheet) + operations(found)

    return Column(name, (title, "FLOPs"), value, text)


def _at_least(sheet: CostSheet) -> str:
    return "" if sheet.exact_flops else "at least "


# What fits.


def _fit(memory: int) -> Iterator[Column]:
    yield Column(
        "fits",
        ("fits", human(memory)),
        lambda row: float(row.longest_context.needed_bytes <= memory),
        lambda row: "yes" if row.longest_context.needed_bytes <= memory else "no",
        more_is_better=True,
    )
    yield Column("longest", ("longest", "context"), _longest, _longest_text, more_is_better=True)


def _longest(row: Row) -> float:
    assert row.sheet.fit is not None
    return float("inf") if row.sheet.fit.longest is None else row.sheet.fit.longest


def _longest_text(row: Row) -> str:
    longest = _longest(row)
    return "any" if longest == float("inf") else f"{longest:,}" if longest else "none"


def _bound(row: Row) -> float | None:
    return row.longest_context.tokens_per_second


def _bound_text(row: Row) -> str:
    bound = _bound(row)
    return "-" if bound is None else rate(bound)


# Several devices.


def _spread(devices: int) -> Iterator[Column]:
    def name(row: Row) -> str:
        if row.strategy is None:
            return "-"
        return row.strategy.name + (" (does not fit)" if row.strategy.fits is False else "")

    yield Column("strategy", (f"on {devices:,}", "devices"), name, name)
    yield _of_strategy("device-memory", "per", "device", lambda row: row.memory_bytes, lambda n: human(int(n)))
    yield _of_strategy("device-speed", "together", "tokens/s", lambda row: row.together, rate, more=True)


def _of_strategy(
    name: str,
    first: str,
    second: str,
    ask: Callable[[StrategyCost], float],
    write: Callable[[float], str],
    *,
    more: bool = False,
) -> Column:
    def value(row: Row) -> float | None:
        return None if row.strategy is None else ask(row.strategy)

    def text(row: Row) -> str:
        return "-" if row.strategy is None else write(ask(row.strategy))

    return Column(name, (first, second), value, text, more_is_better=more)


# What was measured.


def _measured() -> Iterator[Column]:
    yield _speed("prefill-speed", "prefill", lambda found: found.prefill)
    yield _speed("decode-speed", "decode", lambda found: found.decode)

    def peak(row: Row) -> int | None:
        return row.measured.peak_bytes if row.measured else None

    yield Column("peak", ("peak", "memory"), peak, lambda row: "-" if (found := peak(row)) is None else human(found))


def _speed(name: str, title: str, ask: Callable[[Measurement], Spread | None]) -> Column:
    def spread(row: Row) -> Spread | None:
        return ask(row.measured) if row.measured else None

    def value(row: Row) -> float | None:
        found = spread(row)
        return found.median if found else None

    def text(row: Row) -> str:
        found = spread(row)
        return "-" if found is None else f"{rate(found.median)} ±{found.variation:.0%}"

    return Column(name, (title, "tokens/s"), value, text, more_is_better=True)
