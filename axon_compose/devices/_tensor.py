"""Tensor parallelism as a change of the plan: each device has a plan of its own, of smaller components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from axon_compose.devices._agree import Place, agree, places
from axon_compose.devices._part import Part, part_of
from axon_compose.diagnostics import Refusal
from axon_compose.plan import Branch, Layer, Plan, Use, change_layer, layer_cache
from axon_compose.registry import Shard, Split

__all__ = ["TensorPlan", "devices_of", "split_plan"]

#: Why a norm, a connection or a residual scheme is whole.
_BETWEEN = "it works on the residual stream, which every device has"
_ALONE: Final = Shard()
#: Reasons that one message gives.
_MOST = 8


@dataclass(frozen=True)
class TensorPlan:
    """What one of several devices runs of a model whose components are split.

    Attributes:
        plan: The device's plan: its components are smaller, and so are its caches; where `Use.shard_output` says so,
            outputs of all devices are summed or put together.
        size: Number of devices.
        rank: The device, from 0.
        splits: Path of the weights of each component that is split, to what its record says.
        whole: Path of every other component, to why each device has all of it.
    """

    plan: Plan
    size: int
    rank: int
    splits: Mapping[str, Split] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)


def split_plan(
    plan: Plan,
    size: int,
    rank: int = 0,
    *,
    sum: Callable[[Any], Any] = _ALONE.sum,  # noqa: A002 (as in `Shard`)
    gather: Callable[[Any], Any] = _ALONE.gather,
    groups: Mapping[str, int] | None = None,
) -> TensorPlan:
    """The plan of one device of several that share the components of every layer.

    Args:
        plan: The whole model.
        size: Number of devices.
        rank: The device.
        sum: `(array)` to the sum over all devices; components get it as `dims.shard.sum`.
        gather: `(array)` to the arrays of all devices side by side, as `dims.shard.gather`.
        groups: Full names of quantised modules to the numbers that share a scale, which stay together.

    Raises:
        Refusal: `AX980`, nothing of the layers can be split over this number of devices. Table and head alone, which
            any number of devices can share, are not worth it.
        PluginFault: `AX212`, the record of a component raises, or gives something else than was agreed.
    """
    if size < 2:
        return TensorPlan(plan, 1, 0, {}, {use.path: "there is one device" for use in plan.uses()})
    shard = Shard(rank, size, sum, gather)
    found = list(places(plan))
    parts = {place.name: part_of(place.use, shard, groups or {}) if place.asked else _BETWEEN for place in found}
    agree(found, parts)
    splits = {place.use.path: part.split for place in found if isinstance(part := parts[place.name], Part)}
    whole = {place.use.path: part for place in found if isinstance(part := parts[place.name], str)}
    if not any(isinstance(parts[place.name], Part) for place in found if place.layer is not None):
        raise _refusal(plan, size, found, parts)
    return TensorPlan(_planned(plan, parts), size, rank, splits, whole)


def devices_of(plan: Plan) -> int:
    """How many devices share the components of a plan: 1 unless it is what `split_plan` made for one of several."""
    return max(use.dims.shard.size for use in plan.uses())


def _planned(plan: Plan, parts: Mapping[str, Part | str]) -> Plan:
    """The device's plan: slots are as many and as before, of the caches that its parts need; masks are the same."""

    def placed(name: str, use: Use) -> Use:
        part = parts[name]
        return part.placed(use) if isinstance(part, Part) else use

    def layer(old: Layer) -> Layer:
        new = change_layer(old, lambda use: placed(f"{old.index}.{use.key}", use))
        return replace(new, branches=tuple(map(_summed_once, new.branches)), cache=layer_cache(new))

    layers = tuple(map(layer, plan.layers))
    return replace(
        plan,
        embedding=placed("embedding", plan.embedding),
        layers=layers,
        head=placed("head", plan.head),
        slots=tuple(layer.cache for layer in layers if layer.cache is not None),
    )


def _summed_once(branch: Branch) -> Branch:
    """A branch whose components are added anyhow: parts of the same factor are added before, and summed by the last."""
    added = [(at, each) for at, each in enumerate(branch.members) if each.plain and each.use.shard_output == "sum"]
    if len(added) < 2 or len({member.scale for _, member in added}) > 1:
        return branch
    members = list(branch.members)
    for at, member in added[:-1]:
        members[at] = replace(member, use=replace(member.use, shard_output="later"))
    return replace(branch, members=tuple(members))


def _refusal(plan: Plan, size: int, found: list[Place], parts: Mapping[str, Part | str]) -> Refusal:
    whole = (place for place in found if place.asked and isinstance(parts[place.name], str))
    reasons = dict.fromkeys(f"`{place.use.name}`: {parts[place.name]}" for place in whole)
    return Refusal(
        "AX980",
        f"no layer of `{plan.name}` can be split over {size} devices",
        "take a number that divides heads and widths, or run whole layers on each device (`--pipeline`)",
        list(reasons)[:_MOST],
    )
