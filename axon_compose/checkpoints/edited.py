"""What a folder that an edit has written says of itself: where its layers come from, and what is new in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.built import CONFIG_FILE, is_built, read_built
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.config import CONFIG_KEY
from axon_compose.plan import Plan

__all__ = ["EDIT_KEY", "Edited", "edit_noted", "edited_of", "read_edited"]

#: Where it is in our section of config.json.
EDIT_KEY: Final = "edit"


@dataclass(frozen=True)
class Edited:
    """How a model has come out of another one.

    Attributes:
        origins: For each layer that of the source, or None.
        changed: Paths of components that do not have the source's weights as they were.
        vocabulary: For each token that of the source, or -1; None if they are the same.
        edits: The edits in order, as plain data.
    """

    origins: tuple[int | None, ...]
    changed: tuple[str, ...] = ()
    vocabulary: tuple[int, ...] | None = None
    edits: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What is written into config.json."""
        data = {"edits": list(self.edits), "origins": list(self.origins), "changed": list(self.changed)}
        return data if self.vocabulary is None else data | {"vocabulary": list(self.vocabulary)}


def edit_noted(folder: Path) -> Any:
    """What config.json says of an edit, as it is written there; None if nothing."""
    return read_built(folder).written[CONFIG_KEY].get(EDIT_KEY) if is_built(folder) else None


def edited_of(data: Any, plan: Plan) -> Edited | None:
    """The record that plain data is; None if it is none, or that of a model with other layers, tokens or components.

    Args:
        data: As `edit_noted` gives it.
        plan: The model.
    """
    found = _parsed(data) if isinstance(data, Mapping) else None
    fits = (
        found is not None
        and len(found.origins) == len(plan.layers)
        and (found.vocabulary is None or len(found.vocabulary) == int(plan.dims.vocab_size))
        and set(found.changed) <= {use.path for use in plan.uses()}
    )
    return found if fits else None


def read_edited(folder: Path, plan: Plan) -> Edited | None:
    """What is written in a folder; None if no edit has written it.

    Args:
        folder: Of the edited model.
        plan: The model.

    Raises:
        CheckpointError: AX950 it is not what an edit writes, or belongs to another model.
    """
    data = edit_noted(folder)
    if data is None:
        return None
    found = edited_of(data, plan)
    if found is None:
        message = f"`{folder / CONFIG_FILE}` does not say where the layers of `{plan.name}` come from"
        raise CheckpointError("AX950", message, "write the folder anew with `axon-compose edit`")
    return found


def _parsed(data: Mapping[str, Any]) -> Edited | None:
    origins, changed = data.get("origins"), data.get("changed", [])
    vocabulary, edits = data.get("vocabulary"), data.get("edits", [])
    right = (
        isinstance(origins, list)
        and all(each is None or (isinstance(each, int) and each >= 0) for each in origins)
        and isinstance(changed, list)
        and all(isinstance(each, str) for each in changed)
        and (vocabulary is None or (isinstance(vocabulary, list) and all(isinstance(one, int) for one in vocabulary)))
        and isinstance(edits, list)
    )
    if not right or not isinstance(origins, list):
        return None
    return Edited(tuple(origins), tuple(changed), None if vocabulary is None else tuple(vocabulary), tuple(edits))
