"""The splits of a component over devices, tested: the parts together give what the whole component gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from axon_compose.plan import Plan, Use
from axon_compose.registry import (
    PASS_VALUES,
    ComponentSpec,
    Cut,
    Dims,
    Registry,
    Split,
    check_options,
    load_factory,
    written,
)
from axon_compose.testing._devices import Arrays, Group, Result, cut, place
from axon_compose.testing._model import DIMS, model_plan
from axon_compose.testing._registered import registered

__all__ = ["assert_splits", "check_splits"]

#: How far what the parts give may be from what the whole component gives, relative to the largest number.
_ROUNDINGS: Final = 2e-6
#: Added to parameters as they are made, so that none is without effect, such as a bias of zeros.
_SPREAD: Final = 0.1
#: Ends of passes: one without caches over all tokens, and with caches chunks, then single tokens.
_PLAIN: Final = (12,)
_CHUNKS: Final = (5, 9, 10, 11, 12)


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
    record gives for their options, and `summed` counts what they sum inside.

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
    assert spec.kind not in ("residual", "connection", "position"), f"a component of kind {spec.kind} stays whole"
    use = [use for use in plan.uses() if use.spec.name == spec.name][-1]
    uses = [*_sources(plan, use), use]
    weights = [_weights(each, seed + index) for index, each in enumerate(uses)]
    passes = (_PLAIN,) if all(each.cache is None for each in uses) else (_PLAIN, _CHUNKS)
    whole: list[list[Result]] = []
    found: dict[int, Split | str] = {}
    for size in devices:
        splits = _splits_of(uses, size)
        found[size] = splits if isinstance(splits, str) else splits[-1]
        if isinstance(splits, str):
            continue
        if not whole:
            alone = Group(plan, uses, [_unsplit(each) for each in uses], weights, 1)
            whole = [alone.run(ends, seed)[0] for ends in passes]
        group = Group(plan, uses, splits, weights, size)
        for ends, wanted in zip(passes, whole, strict=True):
            _compare(f"`{use.type}` on {size} devices", splits[-1], wanted, group.run(ends, seed))
    return found


def _sources(plan: Plan, use: Use) -> list[Use]:
    """The components that it reads from, in the order of the model; of a head, the embedding."""
    if use.spec.kind == "head":
        return [plan.embedding]
    wanted = {source.rpartition(".")[0] for value, source in use.reads.items() if value not in PASS_VALUES}
    direct = [each for each in plan.uses() if place(each) in wanted]
    return list({each.path: each for source in direct for each in (*_sources(plan, source), source)}.values())


def _unsplit(use: Use) -> Split:
    return Split(use.options, output="whole")


def _splits_of(uses: Sequence[Use], size: int) -> list[Split] | str:
    """One split for each, or why the last one stays whole."""
    splits = {place(use): _split_of(use, size) for use in uses}
    reader, split = uses[-1], splits[place(uses[-1])]
    if isinstance(split, str):
        return split
    if reader.spec.kind == "head":
        table = splits[place(uses[0])]
        if not _reads_table(reader):
            splits[place(uses[0])] = _unsplit(uses[0])
        elif isinstance(table, str):
            return f"the embedding stays whole: {table}"
    for use in uses:
        own = splits[place(use)]
        for value, source in use.reads.items():
            other = splits.get(source.rpartition(".")[0])
            parts = isinstance(own, Split) and value in own.published
            if other is not None and parts != (isinstance(other, Split) and value in other.published):
                return f"`{value}` is not split alike where it is published and read"
    return [each if isinstance(each, Split) else _unsplit(use) for use, each in zip(uses, splits.values(), strict=True)]


def _reads_table(head: Use) -> bool:
    touched = head.spec.touched(head.options, head.dims, 1) if head.spec.touched else {}
    return any(name.startswith("embedding.") for name in touched)


def _split_of(use: Use, size: int) -> Split | str:
    """What the record says, found to be consistent."""
    who = f"the split of `{use.type}` over {size} devices"
    split = "its record has no `split`" if use.spec.split is None else use.spec.split(use.options, use.dims, size)
    if isinstance(split, str):
        assert split, f"{who} is an empty text"
        return split
    as_written = split.options if isinstance(split.options, Mapping) else written(split.options)
    options, faults = check_options(use.spec, as_written)
    assert not faults, f"{who}: its options are refused: {faults[0].message} {faults[0].label}"
    split = replace(split, options=options)
    unknown = sorted(split.roles.keys() - use.params.keys())
    assert not unknown, f"{who} has roles of {unknown}, which are no parameters"
    for name, role in split.roles.items():
        shape = use.params[name]
        if isinstance(role, Cut):
            assert role.axis < len(shape), f"{who} cuts axis {role.axis} of `{name}`, which is {shape}"
            along = sum(segment.size for segment in role.segments)
            assert along == shape[role.axis], f"{who} cuts {along} entries of `{name}`, which is {shape}"
    declared = {
        name: tuple(shape) for name, shape in use.spec.params(options, Dims({**use.dims, **split.dims})).items()
    }
    for rank in range(size):
        made = {name: _shape(f"{who}: `{name}`", use.params[name], split, name, rank, size) for name in use.params}
        for name in sorted(declared.keys() | made.keys()):
            assert made.get(name) == declared.get(name), (
                f"{who}: the role of `{name}` gives the shape {made.get(name)}, `params` of its options gives "
                f"{declared.get(name)}"
            )
    return split


def _shape(who: str, shape: Sequence[int], split: Split, name: str, rank: int, size: int) -> tuple[int, ...]:
    try:
        return cut(np.empty(shape, np.bool_), split.roles.get(name, "whole"), rank, size).shape
    except ValueError as error:
        raise AssertionError(f"{who}: {error}") from error


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


def _compare(who: str, split: Split, whole: Sequence[Result], parts: Sequence[Sequence[Result]]) -> None:
    for wanted, of_devices in zip(whole, zip(*parts, strict=True), strict=True):
        at = f"tokens {wanted.start} to {wanted.stop - 1}"
        for what, output in _together(split, [result.y for result in of_devices]):
            _close(f"{who}: {what}", wanted.y, output, at)
        for name, value in wanted.published.items():
            if name not in split.published:
                for rank, result in enumerate(of_devices):
                    for one, other in zip(_flat(value), _flat(result.published.get(name)), strict=True):
                        _close(f"{who}: `{name}`, as device {rank} publishes it,", one, other, at)
        for result in of_devices:
            per_token = result.summed / (wanted.y.shape[0] * (wanted.stop - wanted.start))
            assert per_token == split.summed, (
                f"{who}: `summed` is {split.summed}, but the devices sum {per_token:g} numbers for each token"
            )


def _together(split: Split, outputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    if split.output == "sum":
        yield "the sum of the outputs", sum(outputs[1:], outputs[0])
    elif split.output == "gather":
        yield "the outputs beside each other", np.concatenate(outputs, axis=-1)
    else:
        yield from ((f"the output of device {rank}", output) for rank, output in enumerate(outputs))


def _flat(value: Any) -> list[np.ndarray]:
    return [np.array(array) for _, array in tree_flatten(value) if isinstance(array, mx.array)]


def _close(what: str, wanted: np.ndarray, found: np.ndarray, at: str) -> None:
    assert wanted.shape == found.shape, f"{what} has the shape {found.shape}, that of the whole is {wanted.shape}"
    difference = np.abs(wanted.astype(np.float64) - found).max(initial=0.0)
    relative = difference / max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
    assert relative <= _ROUNDINGS, f"{what} differs by {relative:.1e} of the largest number from the whole, at {at}"
