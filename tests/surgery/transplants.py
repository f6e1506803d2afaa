"""A model whose components are made from those of another: what an edit writes, without files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from axon_compose import Architecture
from axon_compose.model import LanguageModel
from axon_compose.plan import Use
from axon_compose.registry import Case, Piece, Transfer, load_make, pieces_of, transfers_from


def case_of(new: Use, old: Use, transfer: Transfer, init: Mapping[str, Any], measured: Any = None) -> Case:
    """Both components, as a transfer gets them."""
    settings, faults = transfer.settled(init)
    assert not faults, faults
    return Case(new.options, new.dims, old.options, old.dims, settings, measured)


def transfer_of(new: Use, old: Use, name: str = "transfer") -> Transfer:
    """The transfer of a pair of components."""
    return transfers_from(new.spec.transfers, new.type, old.type)[name]


def offered(
    new: Use, old: Use, name: str = "transfer", init: Mapping[str, Any] | None = None, measured: Any = None
) -> Mapping[str, Piece] | str:
    """What is made of what, or why it does not fit."""
    transfer = transfer_of(new, old, name)
    return pieces_of(transfer, case_of(new, old, transfer, init or {}, measured), new.who, new.params, old.params)


def made(
    new: Use,
    old: Use,
    arrays: Mapping[str, np.ndarray],
    name: str = "transfer",
    init: Mapping[str, Any] | None = None,
    measured: Any = None,
) -> dict[str, np.ndarray]:
    """The arrays of a new component; they are those that were promised, in the shapes of its record."""
    pieces = offered(new, old, name, init, measured)
    assert not isinstance(pieces, str), pieces
    transfer = transfer_of(new, old, name)
    read = {each: arrays[each] for piece in pieces.values() for each in piece.sources}
    found = load_make(transfer, new.who)(
        case_of(new, old, transfer, init or {}, measured), read, np.random.default_rng(0)
    )
    assert {each: array.shape for each, array in found.items()} == {each: new.params[each] for each in pieces}
    assert {str(array.dtype) for array in found.values()} <= {"float32"}
    return dict(found)


def arrays_of(model: LanguageModel) -> dict[str, np.ndarray]:
    """Every parameter in float32."""
    return {name: np.array(array.astype(mx.float32)) for name, array in tree_flatten(model.parameters())}


def transplanted(
    source: Architecture,
    model: LanguageModel,
    edited: Architecture,
    name: str = "transfer",
    init: Mapping[str, Any] | None = None,
    measured: Any = None,
) -> LanguageModel:
    """The edited model, whose unchanged components are the source's and all others made from them, place by place."""
    given, built = arrays_of(model), edited.build()
    old_uses = {use.path: use for use in source.plan().uses()}
    own = {each: array.dtype for each, array in tree_flatten(built.parameters())}
    found = {}
    for use in edited.plan().uses():
        old = old_uses[use.path]
        arrays = {each: given[f"{use.path}.{each}"] for each in old.params}
        if (use.type, use.options) != (old.type, old.options):
            arrays = made(use, old, arrays, name, init, measured)
        found |= {f"{use.path}.{each}": array for each, array in arrays.items()}
    built.load_weights([(each, mx.array(array).astype(own[each])) for each, array in found.items()], strict=False)
    return built


def logits(model: LanguageModel, tokens: mx.array, dtype: mx.Dtype = mx.float32) -> np.ndarray:
    """Of a model that is cast to a type first."""
    model.set_dtype(dtype)
    return np.array(model(tokens).astype(mx.float32))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, relative to the largest number."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def agree(ours: LanguageModel, theirs: LanguageModel, tokens: mx.array) -> bool:
    """Whether two models give the same up to roundings.

    In float32 up to 2e-5 of the largest logit. In bfloat16 the edited one is as near to float32 as the source is, which
    is measured, up to a factor of three.
    """
    truth, found = logits(theirs, tokens), logits(ours, tokens)
    rounded = difference(logits(theirs, tokens, mx.bfloat16), truth)
    return difference(found, truth) <= 2e-5 and difference(logits(ours, tokens, mx.bfloat16), truth) <= 3 * rounded
