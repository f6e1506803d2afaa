"""The transfers of a component, tested against its record: what they make, and what they claim to leave the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import mlx.core as mx
import numpy as np

from axon_compose.registry import (
    PASS_VALUES,
    SAME,
    Case,
    ComponentSpec,
    Dims,
    LookupFailure,
    Piece,
    PluginFault,
    Registry,
    Transfer,
    TransferExample,
    as_data,
    check_options,
    load_factory,
    load_make,
    pieces_of,
)
from axon_compose.testing._model import DIMS
from axon_compose.testing._registered import registered

__all__ = ["check_transfers"]

Arrays = dict[str, np.ndarray]

#: How far outputs may differ, relative to the largest, where a transfer says that they do not.
_ROUNDINGS: Final = 1e-3
#: What a source with parameters of no special value gets.
_SPREAD: Final = 0.3
_TOKENS: Final = 5


def check_transfers(
    spec: ComponentSpec | str,
    dims: Mapping[str, Any] = DIMS,
    *,
    registry: Registry | None = None,
    seed: int = 0,
) -> None:
    """Test what the parameters of a component can be made from.

    Each of its transfers is tried with its `examples`, or where it has none with those of both records: it must fit at
    least one pair, name parameters that are there, and make them in the declared shapes, in float32, finite and the
    same for the same random numbers. Where all pieces are said to be exact, a layer or norm has to give what the source
    gave.

    Args:
        spec: The record of the new component, or its type, `namespace/name`.
        dims: Sizes of both models.
        registry: The plugins; the installed ones unless given. Sources of plugins that are not there are left out.
        seed: Of weights and inputs.

    Raises:
        AssertionError: In plain words.
        LookupFailure: If there is no such type.
    """
    name, spec, registry = registered(spec, registry)
    for transfer in spec.transfers:
        for example, source in _examples(name, spec, transfer, Dims(dims), registry):
            _check(spec, source, transfer, example, Dims(dims), seed)


def _examples(
    name: str, spec: ComponentSpec, transfer: Transfer, dims: Dims, registry: Registry
) -> Iterator[tuple[TransferExample, ComponentSpec]]:
    """Pairs that fit, each with the record of the source."""
    who = f"the transfer `{transfer.name}` of `{name}`"
    for example in transfer.examples:
        type_name = example.type or transfer.sources[0]
        assert type_name in transfer.sources, f"{who} has an example of {type_name}, which it does not start from"
        if (source := _source(type_name, spec, registry)) is not None:
            fits = _pieces(spec, source, transfer, example, dims)
            assert not isinstance(fits, str), f"{who} does not take its own example {dict(example.options)}: {fits}"
            yield example, source
    if transfer.examples:
        return
    for type_name in transfer.sources:
        if (source := _source(type_name, spec, registry)) is None:
            continue
        pairs = (TransferExample(new, old, type_name) for new in spec.examples for old in source.examples)
        found = next((pair for pair in pairs if not isinstance(_pieces(spec, source, transfer, pair, dims), str)), None)
        assert found is not None, f"{who} fits no examples of both records: give it `examples` of its own"
        yield found, source


def _source(type_name: str, spec: ComponentSpec, registry: Registry) -> ComponentSpec | None:
    if type_name == SAME:
        return spec
    try:
        return registry.component(type_name)
    except LookupFailure:
        return None


def _case(
    spec: ComponentSpec, source: ComponentSpec, transfer: Transfer, example: TransferExample, dims: Dims
) -> Case | str:
    settings, faults = transfer.settled(example.settings)
    options, wrong = check_options(spec, example.options)
    source_options, also_wrong = check_options(source, example.source)
    if found := [*faults, *wrong, *also_wrong]:
        return found[0].message
    return Case(options, dims, source_options, dims, settings, example.measured)


def _pieces(
    spec: ComponentSpec, source: ComponentSpec, transfer: Transfer, example: TransferExample, dims: Dims
) -> Mapping[str, Piece] | str:
    case = _case(spec, source, transfer, example, dims)
    if isinstance(case, str):
        return case
    try:
        new, old = spec.params(case.options, dims), source.params(case.source_options, dims)
    except ValueError as error:
        return str(error)
    try:
        return pieces_of(transfer, case, f"`{spec.name}`", new, old)
    except PluginFault as fault:
        raise AssertionError(fault.message) from fault


def _check(
    spec: ComponentSpec, source: ComponentSpec, transfer: Transfer, example: TransferExample, dims: Dims, seed: int
) -> None:
    case, pieces = _case(spec, source, transfer, example, dims), _pieces(spec, source, transfer, example, dims)
    assert isinstance(case, Case)
    assert not isinstance(pieces, str)
    who = f"the transfer `{transfer.name}` of `{spec.name}`, with {dict(example.options)} from {dict(example.source)},"
    wrong = next((name for name, piece in pieces.items() if piece.exactness not in ("exact", "near")), None)
    assert wrong is None, f"{who} says neither `exact` nor `near` of `{wrong}`"
    rng = np.random.default_rng(seed)
    shapes = source.params(case.source_options, dims)
    arrays = {name: (_SPREAD * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    read = {name: arrays[name] for piece in pieces.values() for name in piece.sources}
    make = load_make(transfer, f"`{spec.name}`")
    made, again = (make(replace(case), dict(read), np.random.default_rng(seed)) for _ in range(2))
    assert set(made) == set(pieces), f"{who} makes {sorted(set(made) ^ set(pieces))} otherwise than its `pieces` say"
    declared = spec.params(case.options, dims)
    for name, array in made.items():
        wanted = tuple(declared[name])
        assert array.shape == wanted, f"{who} makes `{name}` of shape {array.shape}, not {wanted}"
        assert array.dtype == np.float32, f"{who} makes `{name}` in {array.dtype}, not float32"
        assert np.isfinite(array).all(), f"{who} makes numbers of `{name}` that are not finite"
        assert np.array_equal(array, again[name]), f"{who} makes other numbers of `{name}` the second time"
    exact = pieces and all(piece.exactness == "exact" for piece in pieces.values())
    if exact and spec.kind in ("layer", "norm"):
        _check_claim(who, (spec, case.options, dict(made)), (source, case.source_options, arrays), dims, seed)


def _check_claim(
    who: str, new: tuple[ComponentSpec, Any, Arrays], old: tuple[ComponentSpec, Any, Arrays], dims: Dims, seed: int
) -> None:
    """Both components give the same, for a few tokens."""
    if any(_reads_others(spec, options) for spec, options, _ in (new, old)):
        return  # what it reads only exists inside of a model
    mx.random.seed(seed)  # of parameters that begin as for training
    x = mx.array(np.random.default_rng(seed).standard_normal((2, _TOKENS, int(dims.hidden_size))), mx.float32)
    ours, theirs = (_output(*side, dims, x) for side in (new, old))
    difference = float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))
    assert difference <= _ROUNDINGS, f"{who} is said to be exact, but outputs differ by {difference:.1e}"


def _reads_others(spec: ComponentSpec, options: Any) -> bool:
    """Whether a component reads what another one publishes."""
    given = as_data(options, f"`{spec.name}`")
    wanted = {value: option for value, option in spec.reads.items() if value not in PASS_VALUES}
    return any(option is None or given.get(option) not in (None, False) for option in wanted.values())


def _output(spec: ComponentSpec, options: Any, arrays: Arrays, dims: Dims, x: mx.array) -> np.ndarray:
    module = load_factory(spec)(options, dims)
    module.load_weights([(name, mx.array(array)) for name, array in arrays.items()], strict=False)
    arguments: dict[str, Any] = {"offset": 0} if "offset" in spec.reads else {}
    if "tokens" in spec.reads:
        arguments["tokens"] = mx.zeros(x.shape[:2], mx.int32)
    y = module(x, **arguments)
    return np.array(y[0] if isinstance(y, tuple) else y)
