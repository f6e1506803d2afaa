"""A device's part of a model that is loaded: modules of the device's plan, with what the cuts leave of the weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import lcm
from typing import Any, Final, Protocol
from weakref import ref

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from axon_compose.devices import TensorPlan
from axon_compose.diagnostics import Refusal
from axon_compose.model._calls import BuildError, make_module
from axon_compose.plan import Plan, Use
from axon_compose.registry import ONCE, WHOLE, Cut, Role

__all__ = ["Reader", "Unchanged", "Weight", "part_modules", "quantised_groups", "take_weights"]

#: Linear layers of other widths are not offered to quantisation, whatever its groups are.
_NARROWEST: Final = 32
#: What a quantised module has of its matrix beside the packed `weight`.
_BESIDE: Final = ("scales", "biases", "global_scale")

Ranges = tuple[tuple[int, int], ...]


class Reader(Protocol):
    """Reads parts of the tensors of a folder, instead of whole ones that are cut afterwards."""

    def part(self, name: str, like: mx.array, axis: int, ranges: Ranges, zeros: int) -> mx.array | None:
        """Ranges of a tensor, put together along an axis.

        Args:
            name: The tensor.
            like: The whole one, lazy, which it has to be.
            axis: The axis.
            ranges: First entries and ends.
            zeros: Entries after them.

        Returns:
            The part, or None if the folder has no tensor of this name, shape and type.
        """


class Unchanged:
    """Reads parts of those arrays alone that a model still has as it took them from the folder.

    Args:
        reader: Of the folder.
        arrays: What the model took, by their names there. They are not kept: as whole ones they may be large.
    """

    def __init__(self, reader: Reader, arrays: Iterable[tuple[str, mx.array]]) -> None:
        self.reader, self.taken = reader, {name: ref(array) for name, array in arrays}

    def part(self, name: str, like: mx.array, axis: int, ranges: Ranges, zeros: int) -> mx.array | None:
        """See `Reader.part`; None for an array that was replaced, as adapters that are joined with a model do."""
        taken = self.taken.get(name)
        same = taken is not None and taken() is like
        return self.reader.part(name, like, axis, ranges, zeros) if same else None


@dataclass
class Weight:
    """One array of a device's part, before it is taken.

    Attributes:
        module: Its module in the device's model.
        name: Inside the module.
        path: Of the module in the plan.
        whole: The array of the whole model.
        axis: What is cut, None for an array that stays whole.
        ranges: What the device keeps of it along the axis, none of an array that another device has.
        zeros: Entries after those.
    """

    module: nn.Module
    name: str
    path: str
    whole: mx.array
    axis: int | None = None
    ranges: Ranges = ()
    zeros: int = 0

    def taken(self, stored: str, reader: Reader | None) -> mx.array:
        """The part, in memory of its own."""
        if self.axis is None:
            return self.whole
        if not self.ranges:
            return mx.zeros_like(self.whole)
        found = reader.part(stored, self.whole, self.axis, self.ranges, self.zeros) if reader else None
        if found is not None:
            return found
        before = (slice(None),) * self.axis
        pieces = [self.whole[(*before, slice(*limits))] for limits in self.ranges]
        if self.zeros:
            shape = self.whole.shape
            pieces.append(mx.zeros((*shape[: self.axis], self.zeros, *shape[self.axis + 1 :]), self.whole.dtype))
        return mx.contiguous(pieces[0] if len(pieces) == 1 else mx.concatenate(pieces, self.axis))


def quantised_groups(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Modules with quantised weights to the numbers that stay together when they are cut.

    Args:
        modules: Those of the components, by their paths in the plan.
    """
    return {
        _joined(path, name): lcm(inner.group_size, _NARROWEST)
        for path, module in modules.items()
        for name, inner in module.named_modules()
        if _is_quantised(inner)
    }


def part_modules(
    whole: Plan, tensor: TensorPlan, modules: Mapping[str, nn.Module]
) -> tuple[dict[str, nn.Module], list[Weight]]:
    """The modules of a device's plan, and the weights that they are to take from those of the whole model.

    Args:
        whole: The plan of the whole model.
        tensor: That of the device.
        modules: Those of the whole model's components, by their paths in the plan. The ones that are not split are
            those of the device too.

    Raises:
        Refusal: `AX981`, a module holds something else than its component's parameters, such as an adapter.
        BuildError: If a part's parameters are not those that its record declares.
    """
    parts: dict[str, nn.Module] = {}
    weights: list[Weight] = []
    nothing = mx.zeros(())
    for use, part in zip(whole.uses(), tensor.plan.uses(), strict=True):
        old = parts[use.path] = modules[use.path]
        if use.path not in tensor.splits:
            weights += [Weight(old, name, use.path, array) for name, array in tree_flatten(old.parameters())]
            continue
        quantised = {name: inner for name, inner in old.named_modules() if _is_quantised(inner)}
        new = parts[use.path] = _quantised_alike(make_module(part), quantised)
        new.train(old.training)
        for name, array in tree_flatten(old.parameters()):
            weights.append(Weight(new, name, use.path, array, *_cut(use, name, array, quantised, tensor)))
        _check(part, old, new, quantised)
        new.update(tree_map(lambda _: nothing, new.parameters()))  # what they would begin with is forgotten at once
    return parts, weights


def take_weights(weights: list[Weight], stored: Callable[[str], str], reader: Reader | None) -> None:
    """Give a device's modules their weights, one after the other.

    The largest come first: while one is cut it may be there as a whole, when the parts of the others are not there yet.

    Args:
        weights: They are forgotten on the way, so that whole arrays are freed.
        stored: Gives the name in a folder of a parameter of the plan.
        reader: Reads parts from that folder, if there is one.
    """
    weights.sort(key=lambda weight: weight.whole.nbytes)
    while weights:
        weight = weights.pop()
        part = weight.taken(stored(_joined(weight.path, weight.name)), reader)
        weight.module.update(tree_unflatten([(weight.name, part)]))
        del weight.whole
        mx.eval(part)
        mx.clear_cache()


def _quantised_alike(module: nn.Module, quantised: Mapping[str, Any]) -> nn.Module:
    """A new module, of which those of these names are quantised in the same way as these."""
    if not quantised:
        return module

    def how(path: str, _: nn.Module) -> Any:
        inner = quantised.get(path.partition(".")[2])
        if inner is None:
            return False
        scaled = {"global_scale": True} if inner.get("global_scale") is not None else {}
        return {"group_size": inner.group_size, "bits": inner.bits, "mode": inner.mode, **scaled}

    holder = nn.Module()
    holder.part = module
    nn.quantize(holder, class_predicate=how)
    return holder.part


def _cut(
    use: Use, name: str, array: mx.array, quantised: Collection[str], tensor: TensorPlan
) -> tuple[int | None, Ranges, int]:
    """The axis of an array that is cut, what the device keeps of it, and zeros after that; see `Weight`."""
    parameter = _parameter(name, quantised)
    if parameter not in use.params:
        raise Refusal(
            "AX981",
            f"`{use.path}` holds `{name}`, which is no parameter of `{use.type}` and cannot be cut",
            "split the model before adapters are put into it, or join them with it by `mlx_lm.fuse`",
        )
    role: Role = tensor.splits[use.path].roles.get(parameter, WHOLE)
    if role == ONCE:
        return (None, (), 0) if tensor.rank == 0 else (0, (), 0)
    if not isinstance(role, Cut) or array.ndim <= role.axis:
        return None, (), 0
    there, length = array.shape[role.axis], use.params[parameter][role.axis]  # packed words are fewer than numbers
    ranges = role.ranges(tensor.rank, tensor.size)
    zeros = role.length(tensor.size) - sum(end - first for first, end in ranges)
    stored = tuple((first * there // length, end * there // length) for first, end in ranges)
    return role.axis, stored, zeros * there // length


def _parameter(name: str, quantised: Collection[str]) -> str:
    """The parameter of the plan that an array belongs to: a quantised matrix is several arrays."""
    place, _, last = name.rpartition(".")
    return _joined(place, "weight") if place in quantised and last in _BESIDE else name


def _check(part: Use, old: nn.Module, new: nn.Module, quantised: Collection[str]) -> None:
    """Whether a part's module takes what is cut for it."""
    built = {name: tuple(value.shape) for name, value in tree_flatten(new.parameters())}
    plain = {name: shape for name, shape in built.items() if name.rpartition(".")[0] not in quantised}
    wrong = built.keys() ^ {name for name, _ in tree_flatten(old.parameters())}
    wrong |= {name for name, shape in plain.items() if part.params.get(name) != shape}
    if wrong:
        raise BuildError(f"a part of {part.who} builds other parameters than it declares: {', '.join(sorted(wrong))}")


def _is_quantised(module: nn.Module) -> bool:
    return "scales" in module and hasattr(module, "group_size")


def _joined(*names: str) -> str:
    return ".".join(filter(None, names))
