"""What the numbers of a page add up to: parameters by component, caches by kind. All of them are exact."""

from __future__ import annotations

from dataclasses import dataclass, field

from axon_compose.draw._family import FAMILIES, Family, cache_leaves, family
from axon_compose.memory import count
from axon_compose.plan import Plan, active_parameters, total_parameters
from axon_compose.registry import KV, State

__all__ = ["CacheSum", "PartSum", "cache_sums", "facts", "part_sums"]


@dataclass
class PartSum:
    """All places of one component.

    Attributes:
        name: As the file calls it; norms and ends of the stack by what they are.
        type: Its type.
        family: Its family.
        places: How many hold weights.
        parameters: Of all of them.
        active: Those that one token uses.
    """

    name: str
    type: str
    family: Family
    places: int = 0
    parameters: int = 0
    active: int = 0


@dataclass
class CacheSum:
    """All caches of one kind.

    Attributes:
        label: The kind, in words.
        family: Whose colour it has.
        leaves: The caches.
    """

    label: str
    family: Family
    leaves: list[KV | State] = field(default_factory=list)

    def nbytes(self, tokens: int) -> int:
        """Bytes in bfloat16 for one sequence of `tokens` tokens."""
        return sum(leaf.nbytes(tokens) for leaf in self.leaves)


def facts(plan: Plan) -> list[str]:
    """The totals of a title."""
    total, active = total_parameters(plan), active_parameters(plan)
    layers = f"{len(plan.layers)} layer" + ("s" if len(plan.layers) > 1 else "")
    found = [layers, f"{total:,} parameters ({count(total)})"]
    return found if active == total else [*found, f"{count(active)} active per token"]


def part_sums(plan: Plan) -> list[PartSum]:
    """Parameters by component, in the order of the legend; they add up to those of the model."""
    found: dict[tuple[str, str], PartSum] = {}
    for use in plan.uses():
        kind = family(use)
        name = "norms" if kind == "norm" else use.name
        part = found.setdefault((name, use.type), PartSum(name, use.type.removeprefix("core/"), kind))
        part.places += 1
        part.parameters += use.size
        part.active += use.active
    order = list(FAMILIES)
    return sorted(found.values(), key=lambda part: order.index(part.family))


def cache_sums(plan: Plan) -> list[CacheSum]:
    """Caches by kind: those that grow, then windows from the largest, then states."""
    found: dict[tuple[int, int], CacheSum] = {}
    key: tuple[int, int]
    kind: Family
    for leaf in (leaf for slot in plan.slots for leaf in cache_leaves(slot)):
        if isinstance(leaf, State):
            key, label, kind = (2, 0), "recurrent state", "recurrent"
        elif leaf.window is None:
            key, label, kind = (0, 0), "keys and values, whole context", "attention"
        else:
            key, label, kind = (1, -leaf.window), f"keys and values, window {leaf.window:,}", "window"
        found.setdefault(key, CacheSum(label, kind)).leaves.append(leaf)
    return [found[key] for key in sorted(found)]
