"""What each of several devices has of every component, for people: which sizes are less, and what is whole and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from axon_compose.devices._agree import Place, places
from axon_compose.devices._tensor import TensorPlan
from axon_compose.plan import Plan, Use
from axon_compose.registry import as_data

__all__ = ["Share", "Size", "shares"]


@dataclass(frozen=True)
class Size:
    """An option or a size that is less for a part.

    Attributes:
        name: Its name, such as `num_heads`; one inside a mapping has a dotted name.
        part: Of the part.
        whole: Of the whole component; None for what only parts have.
    """

    name: str
    part: int
    whole: int | None


@dataclass(frozen=True)
class Share:
    """What a device has of a component, in all layers where that is alike.

    Attributes:
        layers: The layers, rising; none outside the stack.
        name: The component's name in the file; of a norm, its name in the layer.
        type: Its type.
        sizes: What is less on each device; empty for a component that is whole.
        output: What becomes of the devices' outputs: `sum`, `gather`, or `whole` where each has all of it.
        reason: Why it is whole, empty where it is split.
        parameters: Of one device, in all of these layers; weights that layers share count once.
        whole_parameters: The same of the whole model.
    """

    layers: tuple[int, ...]
    name: str
    type: str
    sizes: tuple[Size, ...]
    output: str
    reason: str
    parameters: int
    whole_parameters: int

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        sizes = {size.name: {"part": size.part, "whole": size.whole} for size in self.sizes}
        return {
            "layers": list(self.layers),
            "name": self.name,
            "type": self.type,
            "split": not self.reason,
            "sizes": sizes,
            "output": self.output,
            "reason": self.reason or None,
            "parameters": self.parameters,
            "whole_parameters": self.whole_parameters,
        }


def shares(plan: Plan, tensor: TensorPlan) -> tuple[Share, ...]:
    """What a device has of every component, in the order of computation; layers with the same part are one entry.

    Args:
        plan: The whole model.
        tensor: What `split_plan` made of it.
    """
    found: dict[tuple[Any, ...], list[tuple[Place, Use]]] = {}
    owned = {id(use) for use in plan.uses()}
    for place, part in zip(places(plan), _uses(tensor.plan), strict=True):
        use = place.use
        alike = use.key, use.type, _sizes(use, part, tensor), tensor.whole.get(use.path, ""), place.layer is None
        found.setdefault(alike, []).append((place, part))
    return tuple(
        Share(
            layers=tuple(place.layer for place, _ in members if place.layer is not None),
            name=name,
            type=type_,
            sizes=sizes,
            output={"later": "sum"}.get(output := members[0][1].shard_output or "whole", output),
            reason=reason,
            parameters=sum(part.size for place, part in members if id(place.use) in owned),
            whole_parameters=sum(place.use.size for place, _ in members if id(place.use) in owned),
        )
        for (name, type_, sizes, reason, _), members in found.items()
    )


def _uses(plan: Plan) -> Iterator[Use]:
    return (place.use for place in places(plan))


def _sizes(use: Use, part: Use, tensor: TensorPlan) -> tuple[Size, ...]:
    """Whole numbers of its options and sizes that are others than those of the whole component."""
    split = tensor.splits.get(use.path)
    if split is None:
        return ()
    before = dict(_numbers(as_data(use.options, use.who)))
    after = dict(_numbers(as_data(part.options, part.who)))
    changed = [Size(name, value, before[name]) for name, value in after.items() if before.get(name, value) != value]
    changed += [
        Size(name, value, use.dims.get(name)) for name, value in _numbers(split.dims) if use.dims.get(name) != value
    ]
    return tuple(changed) or _extents(use, part)


def _extents(use: Use, part: Use) -> tuple[Size, ...]:
    """Of a part without such sizes, extents of its parameters that are less, each once."""
    found: dict[tuple[int, int], Size] = {}
    for name, shape in use.params.items():
        for mine, whole in zip(part.params[name], shape, strict=True):
            if mine != whole:
                found.setdefault((mine, whole), Size(name, mine, whole))
    return tuple(found.values())


def _numbers(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, int]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{before}{name}", value
