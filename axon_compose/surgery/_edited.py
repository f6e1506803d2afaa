"""What a folder that an edit has written says of itself: where its layers come from, and what is new in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.built import CONFIG_FILE, EDIT_KEY, is_built, read_built
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.config import CONFIG_KEY
from axon_compose.plan import Plan

__all__ = ["EDIT_KEY", "Edited", "read_edited"]


@dataclass(frozen=True)
class Edited:
    """How a model has come out of another one.

    Attributes:
        origins: For each layer that of the source, or None.
        changed: Paths of components that do not have the source's weights as they were.
        vocabulary: For each token that of the source, or -1; None if they are the same.
    """

    origins: tuple[int | None, ...]
    changed: tuple[str, ...] = ()
    vocabulary: tuple[int, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is written into config.json."""
        data: dict[str, Any] = {"origins": list(self.origins), "changed": list(self.changed)}
        return data if self.vocabulary is None else data | {"vocabulary": list(self.vocabulary)}


def read_edited(folder: Path, plan: Plan) -> Edited | None:
    """What is written in a folder; None if no edit has written it.

    Args:
        folder: Of the edited model.
        plan: The model.

    Raises:
        CheckpointError: AX950 it is not what an edit writes, or belongs to another model.
    """
    if not is_built(folder):
        return None
    data = read_built(folder).written[CONFIG_KEY].get(EDIT_KEY)
    if data is None:
        return None
    found = _parsed(data)
    paths = {use.path for use in plan.uses()}
    fits = (
        found is not None
        and len(found.origins) == len(plan.layers)
        and (found.vocabulary is None or len(found.vocabulary) == int(plan.dims.vocab_size))
        and set(found.changed) <= paths
    )
    if found is None or not fits:
        message = f"`{folder / CONFIG_FILE}` does not say where the layers of `{plan.name}` come from"
        raise CheckpointError("AX950", message, "write the folder anew with `axon-compose edit`")
    return found


def _parsed(data: Any) -> Edited | None:
    if not isinstance(data, dict):
        return None
    origins, changed, vocabulary = data.get("origins"), data.get("changed", []), data.get("vocabulary")
    right = (
        isinstance(origins, list)
        and all(each is None or (isinstance(each, int) and each >= 0) for each in origins)
        and isinstance(changed, list)
        and all(isinstance(each, str) for each in changed)
        and (vocabulary is None or (isinstance(vocabulary, list) and all(isinstance(one, int) for one in vocabulary)))
    )
    if not right or not isinstance(origins, list):
        return None
    return Edited(tuple(origins), tuple(changed), None if vocabulary is None else tuple(vocabulary))
