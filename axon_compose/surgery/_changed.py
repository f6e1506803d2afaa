"""What of an edited model is other than in its source: what learns when it is healed."""

from __future__ import annotations

from axon_compose.checkpoints.edited import Edited
from axon_compose.diagnostics import CheckpointError
from axon_compose.plan import Layer, Plan

__all__ = ["changed_components", "edited_from"]


def edited_from(record: Edited | None, source: Plan, edited: Plan) -> Edited:
    """What an edit has noted; for other models with as many layers, each comes from the one in its place.

    Raises:
        CheckpointError: AX950 nobody has noted which layers belong together, or it is about another source; AX954 the
            models do not have the same tokens.
    """
    if record is not None and record.vocabulary is not None:
        message = f"`{edited.name}` has other tokens than `{source.name}`, so that it cannot learn its predictions"
        raise CheckpointError(
            "AX954", message, "let it learn from text: `axon-compose train DIR --data TEXT --out OUT`"
        )
    if record is None and len(source.layers) == len(edited.layers):
        return Edited(tuple(range(len(edited.layers))))
    if record is None:
        message = f"nothing says which layers of `{source.name}` those of `{edited.name}` come from"
        raise CheckpointError("AX950", message, "heal a folder that `axon-compose edit` wrote, with its source")
    if any(origin is not None and origin >= len(source.layers) for origin in record.origins):
        message = f"`{edited.name}` was not made of `{source.name}`, which has {len(source.layers)} layers"
        raise CheckpointError("AX950", message, "name the model that it was made of")
    return record


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


def _parts(layer: Layer) -> dict[str, tuple[str, object]]:
    return {use.key: (use.type, use.options) for use in layer.uses()}
