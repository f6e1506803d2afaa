"""The edits of a file, one after the other, on the draft of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from axon_compose.diagnostics import Label, Problems, Span
from axon_compose.language.document.formula import RESERVED
from axon_compose.plan import Use, layer_numbers
from axon_compose.registry import Dims, Registry
from axon_compose.surgery._component import Faulty, names_of, planned, valued
from axon_compose.surgery._draft import Draft, DraftLayer, Part
from axon_compose.surgery._ends import Ends
from axon_compose.surgery._init import Beginning, Init, read_init
from axon_compose.surgery._making import Made, Making
from axon_compose.surgery._readers import Reading, readings
from axon_compose.surgery._rows import NoRows, with_rows
from axon_compose.surgery._selection import SelectionError, one_layer, select
from axon_compose.surgery.document import Drop, Edit, EditText, Insert

if TYPE_CHECKING:
    from axon_compose.surgery._tokens import NewTokens

__all__ = ["Influence", "apply_edits"]

#: Measures how much each layer of the source turns the hidden state.
Influence = Callable[[], list[float]]
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
    editor = _Editor(draft, text, registry, problems, seed, influence, home)
    for number, edit in enumerate(text.file.edits):
        try:
            editor.apply(number, edit)
        except Faulty:
            if edit.action in _COUNTED:
                return


class _Editor:
    def __init__(
        self,
        draft: Draft,
        text: EditText,
        registry: Registry,
        problems: Problems,
        seed: int,
        influence: Influence | None,
        home: Path | None,
    ) -> None:
        self.influence, self.home = influence, home
        self.draft, self.text, self.registry, self.problems, self.seed = draft, text, registry, problems, seed
        self.ends = Ends(draft, text, registry, problems)

    def apply(self, number: int, edit: Edit) -> None:
        """Apply one edit.

        Raises:
            Faulty: It cannot be applied; reported.
        """
        self.number, self.edit = number, edit
        before = {reading.reader: reading for reading in readings(self.draft, self.registry)}
        getattr(self, f"_{edit.action}")()
        for reading in readings(self.draft, self.registry):
            was = before.get(reading.reader)
            if reading.writer is None and (was is None or was.writer is not None):
                self._lost(reading)
            elif was is not None and reading.writer is not was.writer and reading.writer is not None:
                self._read_elsewhere(reading)

    def _lost(self, reading: Reading) -> NoReturn:
        """A reader has nobody to read from any more."""
        what = f"no layer before layer {reading.number} has the `{reading.wanted}` that `{reading.component}` reads"
        hint = (
            f"change `{reading.component}.{reading.option}` in that layer too, or leave one that has `{reading.wanted}`"
        )
        where = self._place(self.edit.action, key=True)
        self.problems.error("AX928", f"after this edit {what}", where, help=hint)
        raise Faulty

    def _read_elsewhere(self, reading: Reading) -> None:
        """A reader reads from another layer than before: a fault where the edit says that it changes nothing."""
        where = self._place(self.edit.action, key=True)
        inserted = self.edit.action == "insert"
        what = "a new layer" if inserted else "another layer than before"
        message = f"`{reading.component}` of layer {reading.number} would read `{reading.wanted}` from {what}"
        if inserted:
            hint = f"choose a `block` without `{reading.wanted}`, or a place after all that read it"
            self.problems.error("AX928", message, where, help=hint)
            raise Faulty
        self.problems.warning("AX928", message, where, help="the nearest earlier layer that has it is read")

    # Places, selections, names.

    def _place(self, *path: str | int, key: bool = False) -> Span:
        return self.text.place("edits", self.number, *path, key=key)

    def _init(self) -> Init:
        span = self._place("init") if self.edit.init is not None else self._place(self.edit.action, key=True)
        return read_init(self.edit.init, span, self.problems)

    def _beginning(self) -> Beginning:
        return Beginning(self._init(), self.problems, self.seed, self.draft.additions)

    @property
    def _dims(self) -> Dims:
        return self.draft.dims

    def _known(self) -> dict[str, Any]:
        return names_of(None, self._dims, None, self.draft.count)

    def _selected(self, written: Any, *path: str | int) -> list[int]:
        """The layers that are meant.

        Raises:
            Faulty: None is; reported.
        """
        span = self._place(*path)
        try:
            return select(valued(written, self._known(), span, self.problems), self.draft.count)
        except SelectionError as error:
            self._no_layer(error, span)

    def _one(self, written: Any, *path: str | int) -> int:
        span = self._place(*path)
        try:
            return one_layer(valued(written, self._known(), span, self.problems), self.draft.count)
        except SelectionError as error:
            self._no_layer(error, span)

    def _no_layer(self, error: SelectionError, span: Span) -> NoReturn:
        was = len(self.draft.source.plan().layers)
        label = ""
        if error.code == "AX922" and was != self.draft.count:
            label = f"the edits before leave {self.draft.count} of {was} layers"
        self.problems.error(error.code, str(error), span, label=label, help=error.help)
        raise Faulty

    def _layers_with(self, name: str, *path: str) -> list[int]:
        """The layers of the edit, all of which have a component; every one that has it unless they are given.

        Raises:
            Faulty: Some have none; reported.
        """
        layers = self.draft.layers
        having = [index for index, layer in enumerate(layers) if name in layer.parts]
        if self.edit.layers is None and having:
            return having
        chosen = self._selected(self.edit.layers, "layers") if self.edit.layers is not None else range(len(layers))
        lacking = [index for index in chosen if name not in layers[index].parts]
        if not lacking:
            return list(chosen)
        at = self._place(self.edit.action, *path, key=True)
        there = list(layers[lacking[0]].parts)
        near = self.problems.nearest(name, there)
        hint = (
            f"did you mean `{near}`?" if near else f"layer {lacking[0]} has {', '.join(f'`{each}`' for each in there)}"
        )
        if having:
            hint += f"; {layer_numbers(having)} {'has' if len(having) == 1 else 'have'} `{name}`"
        labels = [
            Label(span, "replaced here")
            for (other, option), span in layers[lacking[0]].said.items()
            if other == name and option is None
        ]
        if labels:
            have = "has" if len(lacking) == 1 else "have"
            message = f"{layer_numbers(lacking)} {have} no `{name}` any more: an edit before replaces it"
            self.problems.error("AX924", message, at, labels=labels[:1], help="leave one of them")
        else:
            have = "has" if len(lacking) == 1 else "have"
            self.problems.error("AX923", f"{layer_numbers(lacking)} {have} no component `{name}`", at, help=hint)
        raise Faulty

    def _say(self, layer: DraftLayer, name: str, option: str | None, span: Span) -> None:
        """Note what this edit decides, and refuse what an edit before has decided.

        Raises:
            Faulty: Two edits of one file change the same thing; reported.
        """
        said = layer.said
        if (name, option) in said:
            what = f"`{name}.{option}`" if option else f"`{name}`"
            index = next(index for index, each in enumerate(self.draft.layers) if each is layer)
            message = f"two edits change {what} of layer {index}"
            label = Label(said[name, option], "changed here first")
            self.problems.error("AX924", message, span, labels=[label], help="leave one of them")
            raise Faulty
        said[name, option] = span

    # Components.

    def _replace(self) -> None:
        assert self.edit.replace is not None
        beginning = self._beginning()
        for name, component in self.edit.replace.items():
            if name not in self.draft.names() and self.ends.has(name):
                self.ends.replace(self.number, name, component, self.edit, beginning)
                continue
            layers = self._layers_with(name, name)
            new_name = self._new_name(name, component.type, layers)
            for index in layers:
                self._replace_in(index, name, new_name, component.type, component.options, beginning)

    def _replace_in(
        self, index: int, name: str, new_name: str, type_name: str, options: Mapping[str, Any], beginning: Beginning
    ) -> None:
        layer, where = self.draft.layers[index], ("edits", self.number, "replace", name)
        old = self._use(index, name)
        names = names_of(old, self._dims, index, self.draft.count)
        spans = {option: self.text.place(*where, option) for option in options}
        written = {option: valued(value, names, spans[option], self.problems) for option, value in options.items()}
        path = f"layers.{index}.{new_name}"
        new = planned(self.registry, type_name, written, self._dims, path, self.text, where, self.problems)
        span = self.text.place(*where, key=True)
        for each in dict.fromkeys((name, new_name)):
            self._say(layer, each, None, span)
        source = self._source(layer, index, beginning.init)
        for branch, slot in list(layer.slots_of(name)):
            from_use, making = source or (old, branch.made[slot])
            branch.made[slot] = beginning.of(new, from_use, making)
            branch.rename(slot, new_name)
        part = Part(type_name, written, span, spans)
        layer.parts = dict((new_name, part) if each == name else (each, other) for each, other in layer.parts.items())

    def _source(self, layer: DraftLayer, index: int, init: Init) -> tuple[Use, Making] | None:
        """The other component that `init` names, and how it comes about; None if it names none."""
        if init.source is None:
            return None
        if init.source in layer.parts:
            branch, slot = next(layer.slots_of(init.source))
            return self._use(index, init.source), branch.made[slot]
        known = list(layer.parts)
        near = self.problems.nearest(init.source, known)
        hint = f"did you mean `{near}`?" if near else f"layer {index} has {', '.join(known)}"
        self.problems.error("AX923", f"layer {index} has no component `{init.source}`", init.span, help=hint)
        raise Faulty

    def _use(self, index: int, name: str) -> Use:
        """What is known of a component as it is now."""
        layer = self.draft.layers[index]
        branch, slot = next(layer.slots_of(name))
        making, part = branch.made[slot], layer.parts[name]
        if not part.span and not part.spans:
            return making.use
        at = ("edits", self.number, self.edit.action)
        path = f"layers.{index}.{name}"
        return planned(self.registry, part.type, part.written, self._dims, path, self.text, at, self.problems)

    def _new_name(self, name: str, type_name: str, layers: Iterable[int]) -> str:
        """What a replacement is called: as before if its type is the same, else after its type."""
        if all(self.draft.layers[index].parts[name].type == type_name for index in layers):
            return name
        wanted = type_name.rpartition("/")[2].replace("-", "_")
        types = {each: part.type for layer in self.draft.layers for each, part in layer.parts.items()}
        beside = {each for index in layers for each in self.draft.layers[index].parts}
        taken = {*self.draft.data["dims"], *RESERVED, "i"}
        for number in range(1, 100):
            found = wanted if number == 1 else f"{wanted}_{number}"
            if found not in taken and found not in beside and types.get(found, type_name) == type_name:
                return found
        raise AssertionError("no layer has a hundred components of one type")

    def _set(self) -> None:
        assert self.edit.set is not None
        beginning = self._beginning()
        changes: dict[str, dict[str, Any]] = {}
        for key, value in self.edit.set.items():
            name, _, option = key.partition(".")
            if not option:
                at = self._place("set", key, key=True)
                self.problems.error(
                    "AX102", f"`{key}` is not `component.option`", at, help="such as `attn.window_size`"
                )
                raise Faulty
            changes.setdefault(name, {})[option] = value
        for name, options in changes.items():
            keys = [f"{name}.{option}" for option in options]
            if name not in self.draft.names() and self.ends.has(name):
                self.ends.set(self.number, name, options, self.edit, beginning)
                continue
            for index in self._layers_with(name, keys[0]):
                self._set_in(index, name, options, beginning)

    def _set_in(self, index: int, name: str, options: Mapping[str, Any], beginning: Beginning) -> None:
        layer, where = self.draft.layers[index], ("edits", self.number, "set")
        old, part = self._use(index, name), self.draft.layers[index].parts[name]
        names = names_of(old, self._dims, index, self.draft.count)
        written, spans = dict(part.written), dict(part.spans)
        for option, value in options.items():
            span = self.text.place(*where, f"{name}.{option}")
            self._say(layer, name, option, span)
            first, *rest = option.split(".")
            written[first] = _laid(written.get(first), rest, valued(value, names, span, self.problems))
            spans[first] = span
        path = f"layers.{index}.{name}"
        new = planned(self.registry, part.type, written, self._dims, path, self.text, where, self.problems, dotted=name)
        source = self._source(layer, index, beginning.init)
        for branch, slot in layer.slots_of(name):
            from_use, making = source or (old, branch.made[slot])
            branch.made[slot] = beginning.of(new, from_use, making)
        layer.parts[name] = Part(part.type, written, part.span, spans)

    # Layers.

    def _insert(self) -> None:
        insert = self.edit.insert
        assert insert is not None
        start = insert.after == "start"
        after = -1 if start else self._one(insert.after, "insert", "after")
        count = valued(insert.count, self._known(), self._place("insert", "count"), self.problems)
        model = self._model_layer(insert, after)
        init = self._init()
        init = init if init.name else Init("zero_out", None, init.noise, init.seed, init.settings, init.span)
        beginning = Beginning(init, self.problems, self.seed, self.draft.additions)
        neighbour = self.draft.layers[max(after, 0)]
        for number in range(count):
            layer = model.copy()
            layer.origin = neighbour.origin if init.name in ("copy", "keep") else None
            layer.share = None
            self._begin_layer(layer, neighbour, after + 1 + number, beginning)
            self.draft.layers.insert(after + 1 + number, layer)

    def _model_layer(self, insert: Insert, after: int) -> DraftLayer:
        """The layer that new ones are built like."""
        if insert.block is None:
            return self.draft.layers[max(after, 0)]
        blocks = self.draft.blocks()
        if insert.block in blocks:
            return blocks[insert.block]
        near = self.problems.nearest(insert.block, blocks)
        hint = f"did you mean `{near}`?" if near else f"blocks are {', '.join(blocks)}"
        at = self._place("insert", "block")
        self.problems.error("AX923", f"the model has no block `{insert.block}`", at, help=hint)
        raise Faulty

    def _begin_layer(self, layer: DraftLayer, neighbour: DraftLayer, index: int, beginning: Beginning) -> None:
        """How the components of a new layer begin: norms as those of the layer before it where it is built alike."""
        alike = layer.written() == neighbour.written()
        for branch, beside in zip(layer.branches, neighbour.branches if alike else layer.branches, strict=True):
            slots_of = dict(branch.members())
            for slot, making in beside.made.items():
                branch.made[slot] = making
                if slot in slots_of:
                    if branch.written.get("residual") is False or making.use.spec.kind != "layer":
                        self._whole(making.use, beginning)
                    new = _at(making.use, f"layers.{index}.{slots_of[slot]}")
                    branch.made[slot] = beginning.of(new, making.use if alike else None, making if alike else None)
                elif beginning.init.name == "random":
                    branch.made[slot] = Made(making.use, "random", seed=self.seed, additions=self.draft.additions)

    def _whole(self, use: Use, beginning: Beginning) -> None:
        """Refuse to make a component that replaces the stream add nothing to it."""
        if beginning.init.name == "zero_out":
            message = f"`{use.name}` replaces what it reads, so it cannot begin by adding nothing"
            self.problems.error("AX926", message, beginning.init.span, help="write `init: copy` or `init: random`")
            raise Faulty

    def _drop(self) -> None:
        written = self.edit.drop
        gone = self._least(written) if isinstance(written, Drop) else self._selected(written, "drop")
        if len(gone) == self.draft.count:
            message = "this drops every layer"
            self.problems.error("AX930", message, self._place("drop"), help="leave at least one")
            raise Faulty
        self.draft.layers = [layer for index, layer in enumerate(self.draft.layers) if index not in set(gone)]

    def _least(self, written: Drop) -> list[int]:
        """The layers that turn the hidden state least, measured on the source; new ones are none of them."""
        number = valued(written.least, self._known(), self._place("drop", "least"), self.problems)
        chosen = self._selected(written.among, "drop", "among")
        known = [index for index in chosen if self.draft.layers[index].origin is not None]
        at = self._place("drop", "least")
        if number > len(known):
            message = f"{number} layers cannot be dropped out of {len(known)}"
            self.problems.error("AX930", message, at, help=f"`least` is {len(known)} at most here")
            raise Faulty
        if self.influence is None:
            message = "which layers matter least is measured, and there are no weights"
            self.problems.error("AX931", message, at, help="give their folder with `--weights DIR`")
            raise Faulty
        found = self.influence()
        return sorted(known, key=lambda index: found[self.draft.layers[index].origin or 0])[:number]

    # Tokens.

    def _vocabulary(self) -> None:
        vocabulary = self.edit.vocabulary
        assert vocabulary is not None
        at = self._place("vocabulary", key=True)
        if (vocabulary.corpus is None) == (vocabulary.tokenizer is None):
            hint = "such as `vocabulary: {corpus: texts}`"
            self._uncut("a vocabulary is that of a `corpus`, or of a `tokenizer`", at, hint)
        if self.home is None:
            self._uncut("the tokenizer beside the weights is needed", at, "give their folder with `--weights DIR`")
        if self.draft.tokens is not None:
            self._uncut("the vocabulary changes twice", at, "write the second one as an edit of its own")
        from axon_compose.learn.data import Sources
        from axon_compose.surgery._tokens import Uncut, cut, replaced  # which take a tokenizer apart

        count = int(self._dims.vocab_size)
        try:
            if vocabulary.tokenizer is not None:
                tokens = replaced(self.home, Path(self.text.beside(vocabulary.tokenizer)), count)
            else:
                names = vocabulary.corpus if isinstance(vocabulary.corpus, list) else [str(vocabulary.corpus)]
                tokens = cut(self.home, Sources(tuple(str(self.text.beside(name)) for name in names)), count)
            self._with_tokens(tokens)
        except (Uncut, NoRows) as fault:
            self._uncut(str(fault), at, "leave the vocabulary as it is")

    def _with_tokens(self, tokens: NewTokens) -> None:
        """Rows for other tokens, wherever there are some."""
        before, after = self._dims, Dims({**self._dims, "vocab_size": len(tokens.rows)})
        places = [branch.made for layer in self.draft.layers for branch in layer.branches]
        for made in (self.draft.ends, *places):
            for name, making in made.items():
                made[name] = with_rows(making, tokens.rows, before, after)
        self.draft.tokens, self.draft.dims = tokens, after
        self.draft.data["dims"]["vocab_size"] = len(tokens.rows)

    def _uncut(self, message: str, span: Span, hint: str) -> NoReturn:
        self.problems.error("AX932", message, span, help=hint)
        raise Faulty

    def _repeat(self) -> None:
        repeat = self.edit.repeat
        assert repeat is not None
        chosen = self._selected(repeat.layers, "repeat", "layers")
        after = chosen[-1] if repeat.after is None else self._one(repeat.after, "repeat", "after")
        times = valued(repeat.times, self._known(), self._place("repeat", "times"), self.problems)
        originals = [self.draft.layers[index] for index in chosen]
        at = after + 1
        for _ in range(times):
            for original in originals:
                layer = original.copy()
                layer.share = None
                if self.edit.init is not None:
                    self._begin_layer(layer, original, at, self._beginning())
                self.draft.layers.insert(at, layer)
                at += 1


def _laid(value: Any, keys: list[str], new: Any) -> Any:
    """A nested option with one part replaced."""
    if not keys:
        return new
    below = dict(value) if isinstance(value, Mapping) else {}
    return below | {keys[0]: _laid(below.get(keys[0]), keys[1:], new)}


def _at(use: Use, path: str) -> Use:
    """A component at another place."""
    return replace(use, path=path, slot=None, masks=(), reads={}, writes=())
