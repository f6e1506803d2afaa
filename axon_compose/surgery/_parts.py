"""`replace` and `set`: components of layers exchanged, or with other options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from axon_compose.language.document.formula import RESERVED
from axon_compose.plan import Use
from axon_compose.surgery._component import Faulty, names_of, planned, valued
from axon_compose.surgery._draft import Part
from axon_compose.surgery._editing import Editing
from axon_compose.surgery._ends import Ends
from axon_compose.surgery._init import Beginning

__all__ = ["change_options", "replace_components"]


def replace_components(editing: Editing) -> None:
    """Put other components in the place of those that an edit names.

    Raises:
        Faulty: They do not fit; reported.
    """
    ends = Ends(editing.draft, editing.text, editing.registry, editing.problems)
    assert editing.edit.replace is not None
    beginning = editing.beginning()
    for name, component in editing.edit.replace.items():
        if name not in editing.draft.names() and ends.has(name):
            ends.replace(editing.number, name, component, editing.edit, beginning)
            continue
        layers = editing.layers_with(name, name)
        new_name = _new_name(editing, name, component.type, layers)
        for index in layers:
            _replace_in(editing, index, name, new_name, component.type, component.options, beginning)


def _replace_in(
    editing: Editing,
    index: int,
    name: str,
    new_name: str,
    type_name: str,
    options: Mapping[str, Any],
    beginning: Beginning,
) -> None:
    layer, where = editing.draft.layers[index], ("edits", editing.number, "replace", name)
    old = editing.use(index, name)
    names = names_of(old, editing.dims, index, editing.draft.count)
    spans = {option: editing.text.place(*where, option) for option in options}
    written = {option: valued(value, names, spans[option], editing.problems) for option, value in options.items()}
    path = f"layers.{index}.{new_name}"
    new = planned(editing.registry, type_name, written, editing.dims, path, editing.text, where, editing.problems)
    span = editing.text.place(*where, key=True)
    for each in dict.fromkeys((name, new_name)):
        editing.say(layer, each, None, span)
    _begin(editing, index, name, old, new, beginning)
    part = Part(type_name, written, span, spans)
    layer.parts = dict((new_name, part) if each == name else (each, other) for each, other in layer.parts.items())


def _begin(editing: Editing, index: int, name: str, old: Use, new: Use, beginning: Beginning) -> None:
    """Put a component, under its own name, into every place of another one in a layer."""
    layer = editing.draft.layers[index]
    source = editing.source(layer, index, beginning.init)
    for branch, slot in list(layer.slots_of(name)):
        from_use, making = source or (old, branch.made[slot])
        branch.made[slot] = beginning.of(new, from_use, making)
        branch.rename(slot, new.name)


def _new_name(editing: Editing, name: str, type_name: str, layers: Iterable[int]) -> str:
    """What a replacement is called: as before if its type is the same, else after its type."""
    if all(editing.draft.layers[index].parts[name].type == type_name for index in layers):
        return name
    wanted = type_name.rpartition("/")[2].replace("-", "_")
    types = {each: part.type for layer in editing.draft.layers for each, part in layer.parts.items()}
    beside = {each for index in layers for each in editing.draft.layers[index].parts}
    taken = {*editing.draft.data["dims"], *RESERVED, "i"}
    for number in range(1, 100):
        found = wanted if number == 1 else f"{wanted}_{number}"
        if found not in taken and found not in beside and types.get(found, type_name) == type_name:
            return found
    raise AssertionError("no layer has a hundred components of one type")


def change_options(editing: Editing) -> None:
    """Give components other options.

    Raises:
        Faulty: They do not fit; reported.
    """
    ends = Ends(editing.draft, editing.text, editing.registry, editing.problems)
    assert editing.edit.set is not None
    beginning = editing.beginning()
    changes: dict[str, dict[str, Any]] = {}
    for key, value in editing.edit.set.items():
        name, _, option = key.partition(".")
        if not option:
            at = editing.place("set", key, key=True)
            editing.problems.error("AX102", f"`{key}` is not `component.option`", at, help="such as `attn.window_size`")
            raise Faulty
        changes.setdefault(name, {})[option] = value
    for name, options in changes.items():
        keys = [f"{name}.{option}" for option in options]
        if name not in editing.draft.names() and ends.has(name):
            ends.set(editing.number, name, options, editing.edit, beginning)
            continue
        for index in editing.layers_with(name, keys[0]):
            _set_in(editing, index, name, options, beginning)


def _set_in(editing: Editing, index: int, name: str, options: Mapping[str, Any], beginning: Beginning) -> None:
    layer, where = editing.draft.layers[index], ("edits", editing.number, "set")
    old, part = editing.use(index, name), layer.parts[name]
    names = names_of(old, editing.dims, index, editing.draft.count)
    written, spans = dict(part.written), dict(part.spans)
    for option, value in options.items():
        span = editing.text.place(*where, f"{name}.{option}")
        editing.say(layer, name, option, span)
        first, *rest = option.split(".")
        written[first] = _laid(written.get(first), rest, valued(value, names, span, editing.problems))
        spans[first] = span
    path = f"layers.{index}.{name}"
    new = planned(
        editing.registry, part.type, written, editing.dims, path, editing.text, where, editing.problems, dotted=name
    )
    _begin(editing, index, name, old, new, beginning)
    layer.parts[name] = Part(part.type, written, part.span, spans)


def _laid(value: Any, keys: list[str], new: Any) -> Any:
    """A nested option with one part replaced."""
    if not keys:
        return new
    below = dict(value) if isinstance(value, Mapping) else {}
    return below | {keys[0]: _laid(below.get(keys[0]), keys[1:], new)}
