"""Parts of components as on several devices, run one after the other in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from axon_compose.model import make_cache
from axon_compose.model._forward import make_mask
from axon_compose.plan import Plan, Use
from axon_compose.registry import KV, ONCE, CacheSpec, Composite, Cut, Dims, Role, Shard, Split, load_factory

__all__ = ["Arrays", "Group", "Result", "cut", "place"]

Arrays = Mapping[str, np.ndarray]

_SEQUENCES: Final = 2


def cut(array: np.ndarray, role: Role, rank: int, size: int) -> np.ndarray:
    """What a device keeps of a parameter.

    Args:
        array: The whole parameter.
        role: What the split says of it.
        rank: The device.
        size: Number of devices.

    Raises:
        ValueError: If the devices cannot get equal parts.
    """
    if isinstance(role, Cut):
        kept = [np.arange(first, end) for first, end in role.ranges(rank, size)]
        return array.take(np.concatenate(kept), axis=role.axis)
    return np.zeros_like(array) if role == ONCE and rank > 0 else array


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
        summed: Numbers that the devices summed inside of components.
    """

    start: int
    stop: int
    y: np.ndarray
    published: Mapping[str, Any]
    summed: int


class _Waiting(BaseException):
    """A device has come to a sum that others have not come to yet; no Exception, so that no component catches it."""

    def __init__(self, array: mx.array) -> None:
        super().__init__()
        self.array = array


class _Sums:
    """Sums inside of components, without threads: MLX computes an array only in the thread that made it.

    A device that comes to a sum of which not all summands are known stops there. When all have stopped, all begin
    again, and this time find the sum there.

    Args:
        size: Number of devices.
    """

    def __init__(self, size: int) -> None:
        self.known: list[mx.array] = []
        self._reached = [0] * size

    def add(self, rank: int, array: mx.array) -> mx.array:
        """What `dims.shard.sum` is for a device."""
        self._reached[rank] += 1
        if self._reached[rank] > len(self.known):
            raise _Waiting(array)
        return self.known[self._reached[rank] - 1]

    def run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of what devices do, each of which is begun again from where it was before."""
        self.known = []
        while True:
            results, summands = [], []
            for rank, call in enumerate(calls):
                self._reached[rank] = 0
                try:
                    results.append(call())
                except _Waiting as waiting:
                    summands.append(waiting.array)
            if not summands:
                return results
            shapes = {array.shape for array in summands}
            assert not results, "`dims.shard.sum` is called by some devices and not by others: they would wait for ever"
            assert len(shapes) == 1, f"`dims.shard.sum` is called with arrays of unequal shapes: {sorted(shapes)}"
            self.known.append(sum(summands[1:], summands[0]))


class Group:
    """Devices, each with its part of some components of a model.

    Args:
        plan: The model.
        uses: The components, in order, each a reader of those before it or the one under test.
        splits: What each device has of them.
        weights: Of the whole components.
        size: Number of devices.
    """

    def __init__(
        self, plan: Plan, uses: Sequence[Use], splits: Sequence[Split], weights: Sequence[Arrays], size: int
    ) -> None:
        self._plan, self._uses, self._sums = plan, uses, _Sums(size)
        shards = [Shard(rank, size, partial(self._sums.add, rank)) for rank in range(size)]
        self._devices = [_Device(plan, uses, splits, weights, shard) for shard in shards]

    def run(self, ends: Sequence[int], seed: int) -> list[list[Result]]:
        """What the last component gives on each device, pass by pass.

        Args:
            ends: The token after the last of each pass; with several passes there are caches.
            seed: Of tokens and vectors.
        """
        rng, dims = np.random.default_rng(seed), self._plan.dims
        tokens = rng.integers(0, int(dims.vocab_size), (_SEQUENCES, ends[-1]))
        x = rng.standard_normal((_SEQUENCES, ends[-1], int(dims.hidden_size)))
        for device in self._devices:
            device.begin(cached=len(ends) > 1)
        results: list[list[Result]] = [[] for _ in self._devices]
        for start, stop in zip((0, *ends), ends, strict=False):
            given = mx.array(x[:, start:stop], mx.float32), mx.array(tokens[:, start:stop], mx.int32), start
            outputs = self._sums.run([partial(device.step, *given) for device in self._devices])
            summed = sum(array.size for array in self._sums.known)
            for found, (y, published) in zip(results, outputs, strict=True):
                found.append(Result(start, stop, np.array(y), published, summed))
        for device in self._devices:
            device.check_caches()
        return results


class _Device:
    def __init__(
        self, plan: Plan, uses: Sequence[Use], splits: Sequence[Split], weights: Sequence[Arrays], shard: Shard
    ) -> None:
        self._plan, self._uses = plan, uses
        self._caches: list[Any] | None = None
        self._specs: dict[int, CacheSpec] = {}
        self._modules: list[Any] = []
        for use, split, whole in zip(uses, splits, weights, strict=True):
            dims = Dims({**use.dims, **split.dims}, shard)
            kept = {
                name: cut(array, split.roles.get(name, "whole"), shard.rank, shard.size)
                for name, array in whole.items()
            }
            self._modules.append(_module(use, split.options, dims, kept))
            if use.slot is not None and (cache := use.spec.cache(split.options, dims)) is not None:
                self._specs[use.slot[0]] = cache

    def begin(self, *, cached: bool) -> None:
        made = (self._specs.get(slot) for slot in range(len(self._plan.slots)))
        self._caches = [spec and make_cache(spec) for spec in made] if cached else None

    def step(self, x: mx.array, tokens: mx.array, start: int) -> tuple[mx.array, Mapping[str, Any]]:
        """The output of the last component and what it publishes; nothing has happened if it stops at a sum."""
        before = deepcopy(self._caches)
        try:
            values: dict[str, Any] = {"offset": start, "tokens": tokens}
            for use, module in zip(self._uses, self._modules, strict=True):
                published: dict[str, Any] = {}
                out = self._call(use, module, x, values, published)
                values |= {f"{place(use)}.{name}": value for name, value in published.items()}
            mx.eval(out, list(values.values()), [cache.state for cache in self._caches or () if cache is not None])
        except _Waiting:
            self._caches = before
            raise
        return out, published

    def _call(self, use: Use, module: Any, x: mx.array, values: Mapping[str, Any], published: dict[str, Any]) -> Any:
        if use.spec.kind == "head":
            return module(x, self._modules[0])
        arguments = {name: values[source] for name, source in use.reads.items()}
        if use.masks:
            masks = tuple(make_mask(self._plan.masks[index], self._caches, x.shape[1]) for index in use.masks)
            arguments["mask"] = masks[0] if len(masks) == 1 else masks
        if use.slot is not None:
            arguments["cache"] = None if self._caches is None else self._caches[use.slot[0]]
        if use.spec.writes:
            arguments["publish"] = published.__setitem__
        out = module(values["tokens"] if use.spec.kind == "embedding" else x, **arguments)
        return out[0] if isinstance(out, tuple) else out

    def check_caches(self) -> None:
        for slot, spec in self._specs.items():
            for wanted, found in _shapes(spec, self._caches[slot]) if self._caches else ():
                assert wanted == found, f"the cache of a part holds {found}, its record says {wanted}"


def _module(use: Use, options: Any, dims: Dims, weights: Arrays) -> nn.Module:
    module: nn.Module = load_factory(use.spec)(options, dims)
    try:
        return module.load_weights([(name, mx.array(array)) for name, array in weights.items()])
    except ValueError as error:
        raise AssertionError(f"the factory of `{use.type}` makes other parameters for a part: {error}") from error


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
