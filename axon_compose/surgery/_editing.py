"""One edit at work: the draft that it changes, its places, and the layers and components that it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from axon_compose.diagnostics import Label, Problems, Span
from axon_compose.plan import Use, layer_numbers
from axon_compose.registry import Dims, Registry
from axon_compose.surgery._component import Faulty, names_of, planned, valued
from axon_compose.surgery._draft import Draft, DraftLayer
from axon_compose.surgery._init import Beginning, Init, read_init
from axon_compose.surgery._making import Making
from axon_compose.surgery._selection import SelectionError, one_layer, select
from axon_compose.surgery.document import Edit, EditText

__all__ = ["Editing", "Influence"]

#: Measures how much each layer of the source turns the hidden state.
Influence = Callable[[], list[float]]


@dataclass(frozen=True)
class Editing:
    """An edit of a file, and what it works on.

    Attributes:
        draft: The model; changed in place.
        text: The edit file.
        registry: The plugins.
        problems: Collects faults.
        seed: Of what is random, where the file has none.
        influence: Measures the source's layers; None without weights.
        home: Folder or GGUF file of the weights, with their tokenizer.
        number: Of the edit in its file.
        edit: The edit.
    """

    draft: Draft
    text: EditText
    registry: Registry
    problems: Problems
    seed: int
    influence: Influence | None
    home: Path | None
    number: int
    edit: Edit

    def place(self, *path: str | int, key: bool = False) -> Span:
        """Where a path in the edit is in its file."""
        return self.text.place("edits", self.number, *path, key=key)

    def init(self) -> Init:
        """What new parts begin with, as written."""
        span = self.place("init") if self.edit.init is not None else self.place(self.edit.action, key=True)
        return read_init(self.edit.init, span, self.problems)

    def beginning(self) -> Beginning:
        """The same, ready to decide for each component."""
        return Beginning(self.init(), self.problems, self.seed, self.draft.additions)

    @property
    def dims(self) -> Dims:
        """Sizes of the model as it is now."""
        return self.draft.dims

    def known(self) -> dict[str, Any]:
        """What formulas know that are about no component."""
        return names_of(None, self.dims, None, self.draft.count)

    def selected(self, written: Any, *path: str | int) -> list[int]:
        """The layers that are meant.

        Raises:
            Faulty: None is; reported.
        """
        span = self.place(*path)
        try:
            return select(valued(written, self.known(), span, self.problems), self.draft.count)
        except SelectionError as error:
            self._no_layer(error, span)

    def one(self, written: Any, *path: str | int) -> int:
        """The one layer that is meant.

        Raises:
            Faulty: It is none, or several; reported.
        """
        span = self.place(*path)
        try:
            return one_layer(valued(written, self.known(), span, self.problems), self.draft.count)
        except SelectionError as error:
            self._no_layer(error, span)

    def _no_layer(self, error: SelectionError, span: Span) -> NoReturn:
        was = len(self.draft.source.plan().layers)
        label = ""
        if error.code == "AX922" and was != self.draft.count:
            label = f"the edits before leave {self.draft.count} of {was} layers"
        self.problems.error(error.code, str(error), span, label=label, help=error.help)
        raise Faulty

    def layers_with(self, name: str, *path: str) -> list[int]:
        """The layers of the edit, all of which have a component; every one that has it unless they are given.

        Raises:
            Faulty: Some have none; reported.
        """
        layers = self.draft.layers
        having = [index for index, layer in enumerate(layers) if name in layer.parts]
        if self.edit.layers is None and having:
            return having
        chosen = self.selected(self.edit.layers, "layers") if self.edit.layers is not None else range(len(layers))
        lacking = [index for index in chosen if name not in layers[index].parts]
        if not lacking:
            return list(chosen)
        at, first = self.place(self.edit.action, *path, key=True), layers[lacking[0]]
        if replaced := first.said.get((name, None)):
            message = f"{_have(lacking)} no `{name}` any more: an edit before replaces it"
            label = Label(replaced, "replaced here")
            self.problems.error("AX924", message, at, labels=[label], help="leave one of them")
            raise Faulty
        near = self.problems.nearest(name, list(first.parts))
        there = ", ".join(f"`{each}`" for each in first.parts)
        hint = f"did you mean `{near}`?" if near else f"layer {lacking[0]} has {there}"
        if having:
            hint += f"; {_have(having)} `{name}`"
        self.problems.error("AX923", f"{_have(lacking)} no component `{name}`", at, help=hint)
        raise Faulty

    def say(self, layer: DraftLayer, name: str, option: str | None, span: Span) -> None:
        """Note what this edit decides, and refuse what an edit before has decided.

        Raises:
            Faulty: Two edits of one file change the same thing; reported.
        """
        said = layer.said
        before = [key for key in said if key[0] == name and option in (None, key[1])]
        if before:
            what = f"`{name}.{option}`" if option else f"`{name}`"
            index = next(index for index, each in enumerate(self.draft.layers) if each is layer)
            message = f"two edits change {what} of layer {index}"
            label = Label(said[before[0]], "changed here first")
            self.problems.error("AX924", message, span, labels=[label], help="leave one of them")
            raise Faulty
        said[name, option] = span

    def use(self, index: int, name: str) -> Use:
        """What is known of a component as it is now."""
        layer = self.draft.layers[index]
        branch, slot = next(layer.slots_of(name))
        making, part = branch.made[slot], layer.parts[name]
        if not part.span and not part.spans:
            return making.use
        at = ("edits", self.number, self.edit.action)
        path = f"layers.{index}.{name}"
        return planned(self.registry, part.type, part.written, self.dims, path, self.text, at, self.problems)

    def source(self, layer: DraftLayer, index: int, init: Init) -> tuple[Use, Making] | None:
        """The other component that `init` names, and how it comes about; None if it names none."""
        if init.source is None:
            return None
        if init.source in layer.parts:
            branch, slot = next(layer.slots_of(init.source))
            return self.use(index, init.source), branch.made[slot]
        known = list(layer.parts)
        near = self.problems.nearest(init.source, known)
        hint = f"did you mean `{near}`?" if near else f"layer {index} has {', '.join(known)}"
        self.problems.error("AX923", f"layer {index} has no component `{init.source}`", init.span, help=hint)
        raise Faulty


def _have(layers: list[int]) -> str:
    """Layers, and the verb that goes with their number."""
    return f"{layer_numbers(layers)} {'has' if len(layers) == 1 else 'have'}"
