"""Parts of components as on several devices, run one after the other in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from axon_compose.devices import TensorPlan, split_plan
from axon_compose.model import make_cache
from axon_compose.model._forward import make_mask
from axon_compose.plan import Plan, Use
from axon_compose.registry import KV, ONCE, WHOLE, CacheSpec, Composite, Cut, Role, Split, load_factory

__all__ = ["Arrays", "Group", "Result", "place"]

Arrays = Mapping[str, np.ndarray]

_SEQUENCES: Final = 2


def place(use: Use) -> str:
    """How published values name a component: what comes before the name of the value."""
    return use.path.removeprefix("layers.")


@dataclass(frozen=True, slots=True)
class Result:
    """What the last component gave for some tokens.

    Attributes:
        start: The first of the tokens.
        stop: The one after the last.
        y: Its output.
        published: Its named values.
        inside: What the devices summed and gathered inside of it: `sum` or `gather`, and how many numbers.
    """

    start: int
    stop: int
    y: np.ndarray
    published: Mapping[str, Any]
    inside: list[tuple[str, int]]


class _Waiting(BaseException):
    """A device needs what others have not computed yet; no Exception, so that no component catches it."""

    def __init__(self, kind: str, where: str, array: mx.array) -> None:
        super().__init__()
        self.kind, self.where, self.array = kind, where, array


class _Meetings:
    """Sums and gathers inside of components, without threads: MLX computes an array only in the thread that made it.

    A device that reaches one of which not all arrays are known stops there. When all have stopped, all begin again,
    and this time find the result there.

    Args:
        size: Number of devices.
    """

    def __init__(self, size: int) -> None:
        self.where = ""  # the component that runs
        self._known: list[tuple[_Waiting, mx.array]] = []
        self._reached = [0] * size

    def meet(self, kind: str, rank: int, array: mx.array) -> mx.array:
        """What `dims.shard.sum` and `gather` are on a device."""
        self._reached[rank] += 1
        if self._reached[rank] > len(self._known):
            raise _Waiting(kind, self.where, array)
        return self._known[self._reached[rank] - 1][1]

    def inside(self, where: str) -> list[tuple[str, int]]:
        """The sums and gathers inside of a component, the last time, with how many numbers each gave."""
        return sorted((met.kind, result.size) for met, result in self._known if met.where == where)

    def run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of what devices do, each of which is begun again from where it was before."""
        self._known = []
        while True:
            results, stopped = [], list[_Waiting]()
            for rank, call in enumerate(calls):
                self._reached[rank] = 0
                try:
                    results.append(call())
                except _Waiting as waiting:
                    stopped.append(waiting)
            if not stopped:
                return results
            kind, arrays = stopped[0].kind, [waiting.array for waiting in stopped]
            what, shapes = f"`dims.shard.{kind}` is called", {array.shape for array in arrays}
            assert not results, f"{what} by some devices and not by others: they would wait for ever"
            assert len(shapes) == 1, f"{what} with arrays of unequal shapes: {sorted(shapes)}"
            assert {waiting.kind for waiting in stopped} == {kind}, f"{what} where another device calls something else"
            joined = sum(arrays[1:], arrays[0]) if kind == "sum" else mx.concatenate(arrays, axis=-1)
            self._known.append((stopped[0], joined))


class Group:
    """Devices, each with its part of some components of a model.

    Args:
        plan: The whole model.
        paths: Of the components, in order, each a source of those after it; the last is the one under test.
        weights: Of the whole components.
        size: Number of devices.

    Raises:
        Refusal: If no layer can be split.
        PluginFault: If a record says what cannot be.
    """

    def __init__(self, plan: Plan, paths: Sequence[str], weights: Sequence[Arrays], size: int) -> None:
        self._dims, self._path, self._meetings = plan.dims, paths[-1], _Meetings(size)
        meet = self._meetings.meet
        plans = [
            split_plan(plan, size, rank, sum=partial(meet, "sum", rank), gather=partial(meet, "gather", rank))
            for rank in range(size)
        ]
        self.split: Split | str = plans[0].splits.get(paths[-1]) or plans[0].whole[paths[-1]]
        whole = isinstance(self.split, str) and size > 1
        self._devices = [] if whole else [_Device(each, paths, weights, self._meetings) for each in plans]

    def run(self, ends: Sequence[int], seed: int) -> list[list[Result]]:
        """What the last component gives on each device, pass by pass.

        Args:
            ends: The token after the last of each pass; with several passes there are caches.
            seed: Of tokens and vectors.
        """
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, int(self._dims.vocab_size), (_SEQUENCES, ends[-1]))
        x = rng.standard_normal((_SEQUENCES, ends[-1], int(self._dims.hidden_size)))
        for device in self._devices:
            device.begin(cached=len(ends) > 1)
        results: list[list[Result]] = [[] for _ in self._devices]
        for start, stop in zip((0, *ends), ends, strict=False):
            given = mx.array(x[:, start:stop], mx.float32), mx.array(tokens[:, start:stop], mx.int32), start
            outputs = self._meetings.run([partial(device.step, *given) for device in self._devices])
            inside = self._meetings.inside(self._path)
            for found, (y, published) in zip(results, outputs, strict=True):
                found.append(Result(start, stop, np.array(y), published, inside))
        for device in self._devices:
            device.check_caches()
        return results


class _Device:
    def __init__(
        self, tensor: TensorPlan, paths: Sequence[str], weights: Sequence[Arrays], meetings: _Meetings
    ) -> None:
        self._plan, self._meetings = tensor.plan, meetings
        by_path = {use.path: use for use in tensor.plan.uses()}
        self._uses = [by_path[path] for path in paths]
        self._modules = [_module(use, tensor, whole) for use, whole in zip(self._uses, weights, strict=True)]
        self._caches: list[Any] | None = None

    def begin(self, *, cached: bool) -> None:
        needed = {use.slot[0] for use in self._uses if use.slot is not None}
        made = (make_cache(spec) if slot in needed else None for slot, spec in enumerate(self._plan.slots))
        self._caches = list(made) if cached else None

    def step(self, x: mx.array, tokens: mx.array, start: int) -> tuple[mx.array, Mapping[str, Any]]:
        """The output of the last component and what it publishes; nothing has happened if it has to wait."""
        before = deepcopy(self._caches)
        try:
            values: dict[str, Any] = {"offset": start, "tokens": tokens}
            masks = [self._masks(use, x.shape[1]) for use in self._uses]  # before any cache is written
            for use, module, own in zip(self._uses, self._modules, masks, strict=True):
                self._meetings.where, published = use.path, dict[str, Any]()
                out = self._call(use, module, x, values, own, published)
                values |= {f"{place(use)}.{name}": value for name, value in published.items()}
            mx.eval(out, list(values.values()), [cache.state for cache in self._caches or () if cache is not None])
        except _Waiting:
            self._caches = before
            raise
        return out, published

    def _call(
        self,
        use: Use,
        module: Any,
        x: mx.array,
        values: Mapping[str, Any],
        masks: tuple[Any, ...],
        published: dict[str, Any],
    ) -> Any:
        if use.spec.kind == "head":
            return module(x, self._modules[0])
        arguments = {name: values[source] for name, source in use.reads.items()}
        if masks:
            arguments["mask"] = masks[0] if len(masks) == 1 else masks
        if use.slot is not None:
            arguments["cache"] = None if self._caches is None else self._caches[use.slot[0]]
        if use.spec.writes:
            arguments["publish"] = published.__setitem__
        out = module(values["tokens"] if use.spec.kind == "embedding" else x, **arguments)
        return out[0] if isinstance(out, tuple) else out

    def _masks(self, use: Use, length: int) -> tuple[Any, ...]:
        """Out of the component's own cache, if it has one: that of the group's first layer may not be written here."""
        groups = [self._plan.masks[index] for index in use.masks]
        if use.slot is not None:
            children = isinstance(use.cache, Composite)
            slots = [(*use.slot, child) if children else use.slot for child in range(len(groups))]
            groups = [replace(group, slot=slot) for group, slot in zip(groups, slots, strict=True)]
        return tuple(make_mask(group, self._caches, length) for group in groups)

    def check_caches(self) -> None:
        for use in self._uses if self._caches else ():
            if use.slot is not None and use.cache is not None:
                for wanted, found in _shapes(use.cache, self._caches[use.slot[0]]):  # type: ignore[index]
                    assert wanted == found, f"the cache of a part holds {found}, its record says {wanted}"


def _module(use: Use, tensor: TensorPlan, whole: Arrays) -> nn.Module:
    """The module of a part, with the weights that the roles leave it."""
    split = tensor.splits.get(use.path)
    roles = split.roles if split else {}
    kept = {name: _cut(array, roles.get(name, WHOLE), tensor.rank, tensor.size) for name, array in whole.items()}
    module: nn.Module = load_factory(use.spec)(use.options, use.dims)
    try:
        return module.load_weights([(name, mx.array(array)) for name, array in kept.items()])
    except ValueError as error:
        raise AssertionError(f"the factory of `{use.type}` makes other parameters for a part: {error}") from error


def _cut(array: np.ndarray, role: Role, rank: int, size: int) -> np.ndarray:
    if isinstance(role, Cut):
        kept = [np.arange(first, end) for first, end in role.ranges(rank, size)]
        found = array.take(np.concatenate(kept), axis=role.axis)
        padding = np.zeros((array.ndim, 2), int)
        padding[role.axis, 1] = role.length(size) - found.shape[role.axis]
        return np.pad(found, padding)
    return np.zeros_like(array) if role == ONCE and rank > 0 else array


def _shapes(spec: CacheSpec, built: Any) -> Iterator[tuple[Any, Any]]:
    """What a cache should hold for each token or sequence, and what it holds."""
    if isinstance(spec, Composite):
        for index, child in enumerate(spec.children):
            yield from _shapes(child, built[index])
    elif isinstance(spec, KV):
        held = (built.keys.shape[1], built.keys.shape[3], built.values.shape[3])
        yield (spec.heads, *spec.widths), held
    else:
        yield from ((tuple(a.shape), tuple(h.shape[1:])) for a, h in zip(spec.arrays, built.cache, strict=True))
