"""The splits of a component over devices, tested: the parts together give what the whole component gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from axon_compose.devices._part import part_of
from axon_compose.diagnostics import Refusal
from axon_compose.plan import Plan, Use, change_layer
from axon_compose.registry import (
    PASS_VALUES,
    ComponentSpec,
    Gathered,
    PluginFault,
    Registry,
    Shard,
    Split,
    Summed,
    load_factory,
)
from axon_compose.testing._devices import Arrays, Group, Result, place
from axon_compose.testing._model import DIMS, model_plan
from axon_compose.testing._registered import registered

__all__ = ["assert_splits", "check_splits"]

#: How far what the parts give may be from what the whole component gives, relative to the largest number; or this many
#: times as far as it is moved by a rounding of every weight, of which this many are tried.
_EXACT: Final = 2e-6
_ROUNDINGS: Final = 2
_TRIES: Final = 3
#: Added to parameters as they are made, so that none is without effect, such as a bias of zeros.
_SPREAD: Final = 0.1
#: Ends of passes: one without caches over all tokens, and with caches chunks, then single tokens.
_PLAIN: Final = (20,)
_CHUNKS: Final = (8, 17, 18, 19, 20)


def assert_splits(
    spec: ComponentSpec | str,
    options: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] = DIMS,
    devices: Iterable[int] = (2, 4),
    *,
    registry: Registry | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    embedding: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[int, Split | str]:
    """Test how a component is split over devices.

    For each number of devices the parts get what the roles say of the weights of the whole component, and all run on
    the same inputs, at once and then in chunks and token by token with caches: their outputs, summed or put beside each
    other, have to be that of the whole component. Parameters and caches of the parts must have the shapes that the
    record gives for their options, and `inside` names what they sum themselves.

    Args:
        spec: Its record, or the type as a file writes it, `namespace/name`.
        options: As a file writes them.
        dims: Sizes of the model.
        devices: Numbers of devices.
        registry: The plugins; the installed ones unless given.
        sources: Components that it reads from, as for `check_layer`.
        embedding: The section of the model's embedding.
        seed: Of weights and inputs.

    Returns:
        For each number of devices a split that holds, or why there is none; nothing for a component whose record has
        no `split`.

    Raises:
        AssertionError: In plain words.
        LookupFailure: If there is no such type.
    """
    name, spec, registry = registered(spec, registry)
    around = {"embedding": dict(embedding)} if embedding else {}
    plan = model_plan(name, spec.kind, options or {}, dims, registry, sources, around)
    return check_splits(plan, spec, devices, seed=seed)


def check_splits(
    plan: Plan, spec: ComponentSpec, devices: Iterable[int] = (2, 4), *, seed: int = 0
) -> dict[int, Split | str]:
    """Test the splits of the last component of a type in a plan; see `assert_splits`.

    Args:
        plan: The small model around it.
        spec: The component's record.
        devices: Numbers of devices.
        seed: Of weights and inputs.

    Raises:
        AssertionError: In plain words.
    """
    if spec.split is None:
        return {}
    use = [use for use in plan.uses() if use.spec.name == spec.name][-1]
    uses = [*_sources(plan, use), use]
    paths, weights = [each.path for each in uses], [_weights(each, seed + n) for n, each in enumerate(uses)]
    passes = (_PLAIN,) if all(each.cache is None for each in uses) else (_PLAIN, _CHUNKS)
    whole = _Whole(plan, paths, weights, seed)
    found: dict[int, Split | str] = {}
    for size in devices:
        for way in _ways(plan, use, size):
            group = _group(way, use, paths, weights, size)
            split = group if isinstance(group, str) else group.split
            found.setdefault(size, split)
            if isinstance(group, Group) and isinstance(split, Split):
                for ends in passes:
                    _compare(f"`{use.type}` on {size} devices", split, whole, ends, group.run(ends, seed))
    return found


class _Whole:
    """What the whole component gives, with its weights and with rounded ones; computed when it is asked for."""

    def __init__(self, plan: Plan, paths: Sequence[str], weights: Sequence[Arrays], seed: int) -> None:
        self._plan, self._paths, self._weights, self._seed = plan, paths, weights, seed
        self._known: dict[tuple[int, tuple[int, ...]], list[Result]] = {}

    def results(self, ends: tuple[int, ...], step: int) -> Iterator[Result]:
        """What one pass of several gives: with its weights, then with roundings of them."""
        return (self._run(ends, rounding)[step] for rounding in range(_TRIES + 1))

    def _run(self, ends: tuple[int, ...], rounding: int) -> list[Result]:
        key = rounding, ends
        if key not in self._known:
            weights = [_rounded(each, rounding) for each in self._weights] if rounding else self._weights
            self._known[key] = Group(self._plan, self._paths, weights, 1).run(ends, self._seed)[0]
        return self._known[key]


def _rounded(weights: Arrays, seed: int) -> Arrays:
    """The same, each moved by half of what float32 can distinguish, up or down."""
    rng = np.random.default_rng(seed)
    moves = {name: rng.choice((-1, 1), array.shape) * 2.0**-24 for name, array in weights.items()}
    return {n: (a * (1 + moves[n])).astype(a.dtype) if a.dtype == np.float32 else a for n, a in weights.items()}


def _ways(plan: Plan, use: Use, size: int) -> Iterator[Plan]:
    """The plan with each of the ways to split a component as the only one."""
    assert use.spec.split is not None
    answer = use.spec.split(use.options, use.dims, size)
    if isinstance(answer, str | Split):
        yield plan
        return
    for index, _ in enumerate(answer):
        spec = replace(use.spec, split=partial(_way, use.spec.split, index))

        def change(each: Use, spec: ComponentSpec = spec) -> Use:
            return replace(each, spec=spec) if each.spec is use.spec else each

        layers = tuple(change_layer(layer, change) for layer in plan.layers)
        yield replace(plan, embedding=change(plan.embedding), layers=layers, head=change(plan.head))


def _way(split: Callable[..., Any], index: int, options: Any, dims: Any, devices: int) -> Any:
    answer = split(options, dims, devices)
    return answer if isinstance(answer, str | Split) else answer[index]


def _group(plan: Plan, use: Use, paths: Sequence[str], weights: Sequence[Arrays], size: int) -> Group | str:
    """The devices, or why none of them has less than the whole."""
    try:
        return Group(plan, paths, weights, size)
    except PluginFault as fault:
        raise AssertionError(f"on {size} devices: {fault.message}") from fault
    except Refusal as refusal:
        reason = part_of(use, Shard(0, size), {})
        return reason if isinstance(reason, str) else "; ".join(refusal.details)


def _sources(plan: Plan, use: Use) -> list[Use]:
    """The components that it reads from, in the order of the model; of a head, the embedding."""
    if use.spec.kind == "head":
        return [plan.embedding]
    wanted = {source.rpartition(".")[0] for value, source in use.reads.items() if value not in PASS_VALUES}
    direct = [each for each in plan.uses() if place(each) in wanted]
    return list({each.path: each for source in direct for each in (*_sources(plan, source), source)}.values())


def _weights(use: Use, seed: int) -> Arrays:
    """Weights of the whole component: as its factory makes them, with something added."""
    mx.random.seed(seed)
    rng = np.random.default_rng(seed)
    found = {}
    for name, value in tree_flatten(load_factory(use.spec)(use.options, use.dims).parameters()):
        array = np.array(value)
        noise = _SPREAD * rng.standard_normal(array.shape).astype(np.float32)
        found[name] = array + noise if mx.issubdtype(value.dtype, mx.floating) else array
    return found


def _compare(who: str, split: Split, whole: _Whole, ends: tuple[int, ...], parts: Sequence[Sequence[Result]]) -> None:
    for step, of_devices in enumerate(zip(*parts, strict=True)):
        wanted = next(whole.results(ends, step))
        at = f"tokens {wanted.start} to {wanted.stop - 1}"
        for what, output in _together(split, [result.y for result in of_devices]):
            more = output.shape[-1] - (split.gathered or wanted.y.shape[-1])
            if 0 <= more < len(of_devices):  # which the last parts are padded with
                output = output[..., : wanted.y.shape[-1]]
            _close(f"{who}: {what}", output, (each.y for each in whole.results(ends, step)), at)
        for name in wanted.published.keys() - split.published:
            for rank, result in enumerate(of_devices):
                what, value = f"`{name}`, as device {rank} publishes it,", _joined(result.published.get(name))
                wholes = (_joined(each.published[name]) for each in whole.results(ends, step))
                _close(f"{who}: {what}", value, wholes, at)
        tokens = wanted.y.shape[0] * (wanted.stop - wanted.start)
        kinds = {Summed: "sum", Gathered: "gather"}
        declared = sorted((kinds[type(each)], each.width * tokens) for each in split.inside)
        found = of_devices[0].inside
        assert found == declared, f"{who}: inside are {_counted(found)}, `inside` says {_counted(declared)}, at {at}"


def _counted(inside: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"a {kind} of {size} numbers" for kind, size in inside) or "no sums"


def _together(split: Split, outputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    if split.output == "sum":
        yield "the sum of the outputs", sum(outputs[1:], outputs[0])
    elif split.output == "gather":
        yield "the outputs beside each other", np.concatenate(outputs, axis=-1)
    else:
        yield from ((f"the output of device {rank}", output) for rank, output in enumerate(outputs))


def _joined(value: Any) -> np.ndarray:
    """All numbers of a published value, one after the other."""
    arrays = [np.array(array).ravel() for _, array in tree_flatten(value) if isinstance(array, mx.array)]
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _close(what: str, found: np.ndarray, wholes: Iterator[np.ndarray], at: str) -> None:
    """Whether an output is that of the whole, the first of `wholes`; the others are those of rounded weights."""
    wanted = next(wholes)
    assert wanted.shape == found.shape, f"{what} has the shape {found.shape}, that of the whole is {wanted.shape}"
    apart = _distance(wanted, found)
    close = apart <= _EXACT or apart <= _ROUNDINGS * max(_distance(wanted, rounded) for rounded in wholes)
    assert close, f"{what} differs by {apart:.1e} of the largest number from the whole, at {at}"


def _distance(wanted: np.ndarray, found: np.ndarray) -> float:
    difference = np.abs(wanted.astype(np.float64) - found).max(initial=0.0)
    return float(difference / max(float(np.abs(wanted).max(initial=0.0)), 1e-30))
