"""What a model adds up to: totals for a title, and whose colour the parts of a cost sheet have."""

from __future__ import annotations

from typing import Final

from axon_compose.analysis.cost import ContextCost, CostSheet, PartCost, part_name
from axon_compose.machine.units import count
from axon_compose.plan import Plan, active_parameters, total_parameters
from axon_compose.report.draw._family import FAMILIES, Family, family

__all__ = ["CACHES", "cache_bytes", "facts", "parts"]

#: Kinds of caches: what they are called, and the family that keeps most of them.
CACHES: Final[dict[Family, str]] = {
    "attention": "keys and values, whole context",
    "window": "keys and values in windows",
    "recurrent": "recurrent state",
}


def facts(plan: Plan) -> list[str]:
    """The totals of a title."""
    total, active = total_parameters(plan), active_parameters(plan)
    layers = f"{len(plan.layers)} layer" + ("s" if len(plan.layers) > 1 else "")
    found = [layers, f"{total:,} parameters ({count(total)})"]
    return found if active == total else [*found, f"{count(active)} active per token"]


def parts(plan: Plan, sheet: CostSheet) -> list[tuple[Family, PartCost]]:
    """The components of a cost sheet with their families, in the order of the legend."""
    found: dict[tuple[str, str], Family] = {}
    for use in plan.uses():
        found.setdefault((part_name(use), use.type), family(use))
    order = list(FAMILIES)
    pairs = [(found[part.name, part.type], part) for part in sheet.parts]
    return sorted(pairs, key=lambda pair: order.index(pair[0]))


def cache_bytes(cost: ContextCost) -> dict[Family, int]:
    """Bytes of caches by kind, in the order of `CACHES`; they add up to all of them."""
    return dict(zip(CACHES, (cost.growing_bytes, cost.window_bytes, cost.state_bytes), strict=True))
