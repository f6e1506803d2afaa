"""What decides what a layer computes, without the names that a file gives: plain values that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from axon_compose.plan import Branch, Layer, Plan, Use
from axon_compose.registry import PASS_VALUES, as_data

__all__ = ["Places", "branch_kind", "frozen", "layer_form", "layer_kind", "options_of", "part_form", "plain_options"]

Form = tuple[Any, ...]


@dataclass(frozen=True)
class Places:
    """Where named things of a plan are, for values that one layer reads from another.

    Attributes:
        uses: Key of a published value's source, `layer.key`, to `(layer, branch, member)`.
    """

    uses: Mapping[str, tuple[int, int, int]]

    @classmethod
    def of(cls, plan: Plan) -> Places:
        """The places of every component of a stack."""
        return cls(
            {
                f"{layer.index}.{member.use.key}": (layer.index, number, place)
                for layer in plan.layers
                for number, branch in enumerate(layer.branches)
                for place, member in enumerate(branch.members)
            }
        )

    def reads(self, use: Use) -> dict[str, tuple[int, int, int] | str]:
        """Value name to the component that it comes from, `embedding`, or the value of the pass itself."""
        found: dict[str, tuple[int, int, int] | str] = {}
        for value, source in use.reads.items():
            place = source.rpartition(".")[0]
            found[value] = self.uses.get(place, place or source)
        return found


def plain_options(use: Use) -> dict[str, Any]:
    """Validated options as plain data, those left out that only name a component to read from."""
    data = as_data(use.options, use.who)
    names = {option for value, option in use.spec.reads.items() if value not in PASS_VALUES}
    return {key: value for key, value in data.items() if key not in names}


def options_of(use: Use) -> Form:
    """The options in a form that can be compared and hashed."""
    frozen_options: Form = frozen(plain_options(use))
    return frozen_options


def frozen(value: Any) -> Any:
    """Plain data as tuples; booleans and numbers stay distinct, NaN equals itself."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), frozen(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", *map(frozen, value))
    if isinstance(value, bool) or value is None or value != value:
        return ("constant", str(value))
    return ("number", value) if isinstance(value, int | float) else ("text", str(value))


def part_form(use: Use | None, places: Places) -> Form | None:
    """A component by type, options and what it reads; without shapes, which follow from these and the dims."""
    return None if use is None else (use.type, use.spec.name, options_of(use), tuple(sorted(places.reads(use).items())))


def layer_kind(layer: Layer) -> Form:
    """The types of the components of a layer, branch by branch."""
    return tuple(branch_kind(branch) for branch in layer.branches)


def branch_kind(branch: Branch) -> Form:
    """The types of its components, or that it adds something kept."""
    return tuple(member.use.type for member in branch.members) or ("add",)


def layer_form(layer: Layer, places: Places) -> Form:
    """Everything of a layer that decides what it computes, but for shapes."""
    kept: dict[str, tuple[int, int]] = {}
    branches = []
    for number, branch in enumerate(layer.branches):
        members = []
        for place, member in enumerate(branch.members):
            if member.keep is not None:
                kept[member.keep] = (number, place)
            members.append(
                (
                    part_form(member.use, places),
                    member.scale,
                    member.keep is not None,
                    part_form(member.pre, places),
                    part_form(member.post, places),
                )
            )
        branches.append(
            (
                tuple(members),
                part_form(branch.pre, places),
                part_form(branch.post, places),
                part_form(branch.connection, places),
                (branch.scale, branch.skip),
                (branch.residual, branch.closes),
                kept.get(branch.add) if branch.add else None,
            )
        )
    return (tuple(branches), layer.owner)
