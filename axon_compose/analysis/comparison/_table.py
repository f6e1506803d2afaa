"""The comparison: a row of typed figures for each model, in the order that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from axon_compose.analysis.comparison._columns import Column, make_columns
from axon_compose.analysis.cost import ContextCost, CostSheet
from axon_compose.analysis.measurement import Measurement, Workload
from axon_compose.diagnostics import nearest
from axon_compose.notebook import Printed
from axon_compose.plan import Plan

__all__ = ["Comparison", "Row", "UnknownColumn"]


class UnknownColumn(ValueError):
    """A name that no column has; the message names the nearest one."""


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: What the table calls it: its `name`, told apart where several have the same.
        sheet: What it costs.
        measured: What was measured of it, or None.
        plan: The model.
    """

    name: str
    sheet: CostSheet
    measured: Measurement | None = None
    plan: Plan = field(kw_only=True, repr=False, compare=False)

    @property
    def longest_context(self) -> ContextCost:
        """The costs at the most tokens that were asked for."""
        return max(self.sheet.contexts, key=lambda cost: cost.tokens)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data; costs by layer and component are left to the sheet."""
        sheet = self.sheet.to_dict()
        data = {name: value for name, value in sheet.items() if name not in ("parts", "layers", "dtype", "batch")}
        del data["quantize"]
        data |= {"name": self.name, "layers": len(self.sheet.layers)}
        data["measured"] = self.measured and self.measured.to_dict()
        return data


@dataclass(frozen=True)
class Comparison(Printed):
    """Several models, side by side.

    Attributes:
        rows: One for each model, in order.
        contexts: Tokens of each sequence, as asked for.
        dtype: Of weights and caches.
        quantize: Bits of quantised weights, or None.
        batch: Sequences that run together.
        memory: Bytes that there are, or None if nobody asked what fits.
        bandwidth: Bytes that memory moves in a second, or None.
        workload: What was measured, or None.
    """

    rows: tuple[Row, ...]
    contexts: tuple[int, ...]
    dtype: str
    quantize: int | None
    batch: int
    memory: int | None = None
    bandwidth: float | None = None
    workload: Workload | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The figures of the table: those that were asked for."""
        return make_columns(self)

    def column(self, name: str) -> Column:
        """One of the columns; `cache` is that at the longest context.

        Raises:
            UnknownColumn: If there is none; the message names the nearest one.
        """
        columns = {column.name: column for column in self.columns}
        if name == "cache":
            name = f"cache-{max(self.contexts)}"
        if name not in columns:
            near = nearest(name, [*columns, "cache"])
            hint = f"did you mean `{near}`?" if near else f"columns are {', '.join(columns)}"
            raise UnknownColumn(f"there is no column `{name}`; {hint}")
        return columns[name]

    def sort(self, column: str, *, reverse: bool = False) -> Comparison:
        """The same with its rows in another order: the least first, or the most where more is better, as of speeds.

        Args:
            column: Its name, such as `parameters`, `cache` or `longest`.
            reverse: The other way round; what has no figure comes last either way.

        Raises:
            UnknownColumn: If there is no such column.
        """
        found = self.column(column)
        known = [row for row in self.rows if found.value(row) is not None]
        unknown = [row for row in self.rows if found.value(row) is None]
        known.sort(key=found.key, reverse=found.more_is_better != reverse)
        return replace(self, rows=(*known, *unknown))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "contexts": list(self.contexts),
            "dtype": self.dtype,
            "quantize": self.quantize,
            "batch": self.batch,
            "memory_bytes": self.memory,
            "bandwidth": self.bandwidth,
            "workload": None if self.workload is None else vars(self.workload),
            "rows": [row.to_dict() for row in self.rows],
        }
