"""The columns of a comparison: how each is called, its figure of a row, and how people write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from axon_compose.analysis.cost import ContextCost, CostSheet
from axon_compose.analysis.measurement import Measurement, Spread
from axon_compose.machine.units import count, human, operations

if TYPE_CHECKING:
    from axon_compose.analysis.comparison._table import Comparison, Row

__all__ = ["Column", "make_columns"]

Value: TypeAlias = str | float | None


@dataclass(frozen=True)
class Column:
    """One figure of every model.

    Attributes:
        name: What `sort` calls it.
        title: Its head in two lines, the second of which may be empty.
        value: The figure of a row; None if there is none.
        text: The same as people write it.
        more_is_better: Whether the most comes first when rows are sorted by it.
    """

    name: str
    title: tuple[str, str]
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    more_is_better: bool = False

    def key(self, row: Row) -> tuple[bool, str, float]:
        """What rows with a figure are sorted by: names regardless of case."""
        value = self.value(row)
        return (False, value.casefold(), 0.0) if isinstance(value, str) else (True, "", value or 0.0)


def make_columns(comparison: Comparison) -> tuple[Column, ...]:
    """The columns that a comparison has figures for."""
    columns = list(_costs(comparison))
    if comparison.memory is not None:
        columns += _fit(comparison.memory)
    if comparison.bandwidth is not None:
        columns.append(Column("tokens-per-second", ("tokens/s", "at most"), _bound, _bound_text, more_is_better=True))
    if comparison.workload is not None:
        columns += _measured()
    return tuple(columns)


def _costs(comparison: Comparison) -> Iterator[Column]:
    yield Column("name", ("model", ""), lambda row: row.name, lambda row: row.name)
    for name, title, attribute, tell in (
        ("parameters", "parameters", "parameters", count),
        ("active", "active", "active_parameters", count),
        ("weights", "weights", "weight_bytes", human),
    ):
        yield _of_sheet(name, title, attribute, tell)
    for at, tokens in enumerate(comparison.contexts):
        yield _cache(at, tokens)
    longest = f"{max(comparison.contexts):,}"
    yield Column(
        "memory",
        ("memory at", longest),
        lambda row: row.longest_context.memory_bytes,
        lambda row: human(row.longest_context.memory_bytes),
    )
    yield _flops("decode-flops", "decode", lambda row: row.longest_context.decode_flops)
    yield _flops("prefill-flops", "prefill", _prefill)


def _of_sheet(name: str, title: str, attribute: str, tell: Callable[[int], str]) -> Column:
    def value(row: Row) -> int:
        found: int = getattr(row.sheet, attribute)
        return found

    return Column(name, (title, ""), value, lambda row: tell(value(row)))


def _cache(at: int, tokens: int) -> Column:
    def value(row: Row) -> int:
        return row.sheet.contexts[at].cache_bytes

    return Column(f"cache-{tokens}", ("cache at", f"{tokens:,}"), value, lambda row: human(value(row)))


def _prefill(row: Row) -> int:
    """Operations of a prompt for each of its tokens."""
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
    return "-" if bound is None else _rate(bound)


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
        return "-" if found is None else f"{_rate(found.median)} ±{found.variation:.0%}"

    return Column(name, (title, "tokens/s"), value, text, more_is_better=True)


def _rate(number: float) -> str:
    """Tokens a second, three digits: `1,230`, `45.6`."""
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 100 else f"{number:.3g}"
