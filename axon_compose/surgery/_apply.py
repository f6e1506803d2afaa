"""The edits of a file, one after the other, on the draft of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

from axon_compose.diagnostics import Problems
from axon_compose.plan import layer_numbers, layer_ranges
from axon_compose.registry import Registry
from axon_compose.surgery._component import Faulty
from axon_compose.surgery._draft import Draft, DraftLayer
from axon_compose.surgery._editing import Editing, Influence
from axon_compose.surgery._layers import drop_layers, insert_layers, repeat_layers
from axon_compose.surgery._parts import change_options, replace_components
from axon_compose.surgery._readers import Reading, readings
from axon_compose.surgery._vocabulary import change_vocabulary
from axon_compose.surgery.document import EditText

__all__ = ["apply_edits"]

#: What each action does to the draft.
_ACTIONS: Final[Mapping[str, Callable[[Editing], None]]] = {
    "replace": replace_components,
    "set": change_options,
    "insert": insert_layers,
    "drop": drop_layers,
    "repeat": repeat_layers,
    "vocabulary": change_vocabulary,
}
#: Edits after which later ones would only repeat what went wrong.
_COUNTED: Final = ("insert", "drop", "repeat", "vocabulary")


def apply_edits(
    draft: Draft,
    text: EditText,
    registry: Registry,
    problems: Problems,
    *,
    seed: int = 0,
    influence: Influence | None = None,
    home: Path | None = None,
) -> None:
    """Apply every edit of a file to a draft.

    Args:
        draft: The model; changed in place.
        text: The edit file.
        registry: The plugins.
        problems: Collects faults; with any, the draft is of no use.
        seed: Of what is random, where the file has none.
        influence: Measures the source's layers; None without weights.
        home: Folder or GGUF file of the weights, with their tokenizer.
    """
    for number, edit in enumerate(text.file.edits):
        editing = Editing(draft, text, registry, problems, seed, influence, home, number, edit)
        try:
            _apply(editing)
        except Faulty:
            if edit.action in _COUNTED:
                return


def _apply(editing: Editing) -> None:
    """Apply one edit, and see that whoever reads from another component still can.

    Raises:
        Faulty: It cannot be applied; reported.
    """
    draft, registry = editing.draft, editing.registry
    before = {reading.reader: reading for reading in readings(draft, registry)}
    _ACTIONS[editing.edit.action](editing)
    for reading in readings(draft, registry):
        was = before.get(reading.reader)
        if reading.writer is None and (was is None or was.writer is not None):
            _lost(editing, reading)
        elif was is not None and reading.writer is not was.writer and reading.writer is not None:
            _read_elsewhere(editing, reading)
    _check_shared(editing)


def _check_shared(editing: Editing) -> None:
    """Layers that share their weights are built alike.

    Raises:
        Faulty: After this edit they are not; reported.
    """
    groups: dict[str, list[int]] = {}
    for index, layer in enumerate(editing.draft.layers):
        if layer.share:
            groups.setdefault(layer.share, []).append(index)
    for name, layers in groups.items():
        if len({repr(_shapes(editing.draft.layers[index])) for index in layers}) > 1:
            message = f"{layer_numbers(layers)} share the weights `{name}`, and this edit makes them differ"
            where = editing.place(editing.edit.action, key=True)
            editing.problems.error("AX926", message, where, help=f"edit all of them: `layers: {layer_ranges(layers)}`")
            raise Faulty


def _shapes(layer: DraftLayer) -> list[tuple[str, str, Mapping[str, tuple[int, ...]]]]:
    """The types and shapes of a layer's components."""
    made = (item for branch in layer.branches for item in branch.made.items())
    return [(slot, making.use.type, dict(making.use.params)) for slot, making in made]


def _lost(editing: Editing, reading: Reading) -> NoReturn:
    """A reader has nobody to read from any more."""
    what = f"no layer before layer {reading.number} has the `{reading.wanted}` that `{reading.component}` reads"
    option = f"{reading.component}.{reading.option}"
    hint = f"change `{option}` in that layer too, or leave one that has `{reading.wanted}`"
    where = editing.place(editing.edit.action, key=True)
    editing.problems.error("AX928", f"after this edit {what}", where, help=hint)
    raise Faulty


def _read_elsewhere(editing: Editing, reading: Reading) -> None:
    """A reader reads from another layer than before: a fault where the edit says that it changes nothing."""
    where = editing.place(editing.edit.action, key=True)
    inserted = editing.edit.action == "insert"
    what = "a new layer" if inserted else "another layer than before"
    message = f"`{reading.component}` of layer {reading.number} would read `{reading.wanted}` from {what}"
    if inserted:
        hint = f"choose a `block` without `{reading.wanted}`, or a place after all that read it"
        editing.problems.error("AX928", message, where, help=hint)
        raise Faulty
    editing.problems.warning("AX928", message, where, help="the nearest earlier layer that has it is read")
