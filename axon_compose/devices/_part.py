"""What a component says of its split, asked once and checked: a plugin's own code may return anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from axon_compose.plan import Declared, Use, declared
from axon_compose.registry import (
    DEBUG_HELP,
    Composite,
    Cut,
    Dims,
    Guard,
    PluginFault,
    Raised,
    Shard,
    Split,
    check_options,
    written,
)

__all__ = ["Part", "part_of"]


@dataclass(frozen=True)
class Part:
    """A component as one of several devices has it.

    Attributes:
        split: What its record said.
        options: Validated options of the part.
        dims: What its factory sees.
        sizes: What the record declares of the part.
    """

    split: Split
    options: Any
    dims: Dims
    sizes: Declared

    def placed(self, use: Use) -> Use:
        """The component in the plan of the device; masks, slots and values stay as they are in the whole plan."""
        return replace(
            use,
            options=self.options,
            written=written(self.options),
            dims=self.dims,
            params=self.sizes.params,
            active=self.sizes.active,
            cache=self.sizes.cache,
            shard_output=None if self.split.output == "whole" else self.split.output,
            shard_gathered=self.split.gathered,
        )


def part_of(use: Use, shard: Shard, groups: Mapping[str, int]) -> Part | str:
    """A device's part of a component, or in plain words why every device has the whole.

    Every device comes to the same answer, but for what the part's factory reads in `dims.shard`.

    Args:
        use: The component.
        shard: Which device, of how many.
        groups: Full names of quantised modules to the numbers that share a scale.

    Raises:
        PluginFault: `AX212`, the record's code raises, or gives something else than was agreed.
    """
    if use.spec.split is None:
        return f"`{use.type}` does not say how it is split"
    try:
        with Guard():
            answer = use.spec.split(use.options, use.dims, shard.size)
    except Raised as raised:
        raise PluginFault("AX212", f"`split` of {use.who} raises {raised}", DEBUG_HELP) from raised
    if isinstance(answer, str) and answer:
        return answer
    ways = [answer] if isinstance(answer, Split) else answer
    if not isinstance(ways, Sequence) or not ways or not all(isinstance(way, Split) for way in ways):
        _nonsense(use, f"a `{type(answer).__name__}`, not a `Split` or a reason")
    reasons = []
    for way in ways:
        part = _checked(use, way, shard)
        reason = _torn_group(use, way, shard.size, groups)
        if reason is None:
            return part
        reasons.append(reason)
    return reasons[-1]


def _checked(use: Use, split: Split, shard: Shard) -> Part:
    """The part, if its shapes are what the cuts leave of the whole component's."""
    if not set(split.roles) <= set(use.params):
        _nonsense(use, f"a role of `{min(set(split.roles) - set(use.params))}`, which is no parameter")
    if split.output not in ("sum", "gather", "whole"):
        _nonsense(use, f"the output {split.output!r}")
    if isinstance(split.options, Mapping):
        options, faults = check_options(use.spec, split.options, use.type)
        if faults:
            reason = ": ".join(filter(None, (faults[0].message, faults[0].label)))
            _nonsense(use, f"options that it does not take: {reason}")
    else:
        options = split.options
    dims = Dims({**use.dims, **split.dims}, shard, use.dims.streams)
    try:
        sizes = declared(use.spec, options, dims)
    except Raised as raised:
        raise PluginFault("AX212", f"a part of {use.who} has no sizes: {raised}", DEBUG_HELP) from raised
    expected = {name: _cut_shape(use, name, split, shard.size) for name in use.params}
    if dict(sizes.params) != expected:
        differing = min(sorted(expected.items() ^ sizes.params.items()))[0]
        left, found = (of.get(differing, "no shape") for of in (expected, sizes.params))
        _nonsense(use, f"a part whose `{differing}` has {found}, where its cut leaves {left}")
    if _structure(sizes.cache) != _structure(use.cache):
        _nonsense(use, "a part that has another kind of cache")
    return Part(split, options, dims, sizes)


def _cut_shape(use: Use, name: str, split: Split, size: int) -> tuple[int, ...]:
    """What a device has of a parameter."""
    shape, role = use.params[name], split.roles.get(name)
    if not isinstance(role, Cut):
        return shape
    if not 0 <= role.axis < len(shape) or sum(segment.size for segment in role.segments) != shape[role.axis]:
        _nonsense(use, f"a cut of `{name}` that does not fit its shape {shape}")
    try:
        kept = role.length(size)
    except ValueError as error:
        _nonsense(use, f"a cut of `{name}` that does not divide: {error}")
    return (*shape[: role.axis], kept, *shape[role.axis + 1 :])


def _torn_group(use: Use, split: Split, size: int, groups: Mapping[str, int]) -> str | None:
    """Why a quantised matrix cannot be cut so, or None: numbers that share a scale lie along its last axis."""
    for name, role in split.roles.items():
        module = name.rpartition(".")[0]
        group = groups.get(f"{use.path}.{module}" if module else use.path)
        last = len(use.params[name]) - 1
        if group is None or not isinstance(role, Cut) or not role.axis == last > 0:  # biases are in no group
            continue
        edges = [edge for rank in range(size) for both in role.ranges(rank, size) for edge in both]
        if any(edge % group for edge in edges):
            return (
                f"`{module}` is quantised in groups of {group}, and parts of its {use.params[name][-1]} inputs for "
                f"{size} devices would tear them"
            )
    return None


def _structure(cache: Any) -> Any:
    """What decides the class of a cache and its masks."""
    if isinstance(cache, Composite):
        return tuple(map(_structure, cache.children))
    return type(cache), getattr(cache, "window", None), len(getattr(cache, "arrays", ()))


def _nonsense(use: Use, what: str) -> NoReturn:
    raise PluginFault("AX212", f"`split` of {use.who} gives {what}")
