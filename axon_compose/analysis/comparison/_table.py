"""The comparison: a row of typed figures for each model, in the order that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from axon_compose.analysis.comparison._columns import Column, make_columns
from axon_compose.analysis.comparison._row import Row
from axon_compose.analysis.measurement import Workload
from axon_compose.diagnostics import nearest
from axon_compose.notebook import Printed

__all__ = ["Comparison", "UnknownColumn"]


class UnknownColumn(ValueError):
    """A name that no column has; the message names the nearest one."""


@dataclass(frozen=True)
class Comparison(Printed):
    """Several models, side by side.

    Attributes:
        rows: One for each model, in order.
        contexts: Sequence lengths in tokens, as asked for.
        dtype: Of weights and caches.
        quantize: Bits of quantised weights, or None.
        batch: Sequences per batch.
        memory: Bytes available, or None if fit was not asked for.
        bandwidth: Memory bandwidth in bytes per second, or None.
        workload: What was measured, or None.
        devices: Number of devices that each model is spread over too, or None.
    """

    rows: tuple[Row, ...]
    contexts: tuple[int, ...]
    dtype: str
    quantize: int | None
    batch: int
    memory: int | None = None
    bandwidth: float | None = None
    workload: Workload | None = None
    devices: int | None = None

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.rows)} models in {self.dtype}>"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The figures of the table: those that were asked for."""
        return make_columns(
            self.contexts,
            memory=self.memory,
            bandwidth=self.bandwidth,
            measured=self.workload is not None,
            devices=self.devices,
        )

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
        """The comparison with its rows sorted: smallest first, or largest first where more is better, such as speeds.

        Args:
            column: Its name, such as `parameters`, `cache` or `longest`.
            reverse: Reverse the order; rows without a figure come last either way.

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
            **({} if self.devices is None else {"devices": self.devices}),
            "workload": None if self.workload is None else vars(self.workload),
            "rows": [row.to_dict() for row in self.rows],
        }
