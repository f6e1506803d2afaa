"""What of an edited model is other than in its source: what learns when it is healed."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import mlx.core as mx
from mlx.utils import tree_flatten

from axon_compose.checkpoints.edited import Edited
from axon_compose.diagnostics import CheckpointError
from axon_compose.model import LanguageModel
from axon_compose.plan import Layer, Plan

__all__ = ["changed_components", "each_is_one", "edited_from", "other_tokens", "size_of_learners"]


def edited_from(record: Edited | None, source: Plan, edited: Plan) -> Edited:
    """What an edit has noted; for other models with as many layers, each comes from the one in its place.

    Raises:
        CheckpointError: AX950 nobody has noted which layers belong together, or it is about another source; AX954 the
            edited one has tokens that are not one of the source each.
    """
    if record is not None and record.vocabulary is not None and not each_is_one(record.vocabulary):
        raise other_tokens(edited.name, f"has tokens that are not one of `{source.name}` each")
    if record is None and len(source.layers) == len(edited.layers):
        return Edited(tuple(range(len(edited.layers))))
    if record is None:
        message = f"nothing says which layers of `{source.name}` those of `{edited.name}` come from"
        raise CheckpointError("AX950", message, "heal a folder that `axon-compose edit` wrote, with its source")
    if any(origin is not None and origin >= len(source.layers) for origin in record.origins):
        message = f"`{edited.name}` was not made of `{source.name}`, which has {len(source.layers)} layers"
        raise CheckpointError("AX950", message, "name the model that it was made of")
    return record


def each_is_one(vocabulary: Sequence[int]) -> bool:
    """Whether each token of a vocabulary is one of the source, and no two are the same."""
    return min(vocabulary, default=0) >= 0 and len(set(vocabulary)) == len(vocabulary)


def other_tokens(name: str, why: str) -> CheckpointError:
    """AX954."""
    message = f"`{name}` {why}, so that it cannot learn its predictions"
    return CheckpointError("AX954", message, "let it learn from text: `axon-compose train DIR --data TEXT --out OUT`")


def changed_components(record: Edited, source: Plan, edited: Plan) -> list[str]:
    """Paths of components whose weights, type or options are not those of the source.

    A norm is named after the branch that it serves; under a new name it is the old one, unless its weights are new.

    Args:
        record: Where the layers come from.
        source: The model as it was.
        edited: The model as it is.
    """
    found = set(record.changed)
    for layer, origin in zip(edited.layers, record.origins, strict=True):
        known = _parts(source.layers[origin]) if origin is not None else {}
        kept = {use.path for use in layer.uses() if use.spec.kind == "norm" and use.key not in known}
        found |= {use.path for use in layer.uses() if known.get(use.key) != (use.type, use.options)} - kept
    return sorted(found)


def size_of_learners(model: LanguageModel) -> float:
    """The root mean square of the numbers in all matrices that may move; 0 if there are none."""
    matrices = [array for _, array in tree_flatten(model.trainable_parameters()) if array.ndim > 1]
    squares = sum(float(array.astype(mx.float32).square().sum()) for array in matrices)
    return sqrt(squares / max(sum(array.size for array in matrices), 1))


def _parts(layer: Layer) -> dict[str, tuple[str, object]]:
    return {use.key: (use.type, use.options) for use in layer.uses()}
