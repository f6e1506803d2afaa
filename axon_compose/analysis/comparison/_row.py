"""A row of a comparison: one model, its costs and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from axon_compose.analysis.cost import ContextCost, CostSheet
from axon_compose.analysis.devices import DevicesSheet, StrategyCost
from axon_compose.analysis.measurement import Measurement
from axon_compose.plan import Plan

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: What the table calls it: its `name`, made unique where several share it.
        sheet: What it costs.
        measured: What was measured of it, or None.
        plan: The model.
        spread: What it needs on several devices, or None.
    """

    name: str
    sheet: CostSheet
    measured: Measurement | None = None
    plan: Plan = field(kw_only=True, compare=False)
    spread: DevicesSheet | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        return f"<Row {self.name}: {self.sheet.parameters:,} parameters>"

    @property
    def longest_context(self) -> ContextCost:
        """The costs at the longest context asked for."""
        return max(self.sheet.contexts, key=lambda cost: cost.tokens)

    @property
    def strategy(self) -> StrategyCost | None:
        """The strategy to take on several devices: the one that is recommended, else the one that needs least."""
        if self.spread is None:
            return None
        if self.spread.recommended:
            return self.spread.strategy(self.spread.recommended)
        return min(self.spread.strategies, key=lambda row: row.memory_bytes)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready data; costs by layer and component are left to the sheet."""
        sheet = self.sheet.to_dict()
        data = {name: value for name, value in sheet.items() if name not in ("parts", "layers", "dtype", "batch")}
        del data["quantize"]
        data |= {"name": self.name, "layers": len(self.sheet.layers)}
        if self.spread is not None:
            data["devices"] = self.spread.to_dict()
        data["measured"] = self.measured and self.measured.to_dict()
        return data
