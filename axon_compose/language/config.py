"""config.json as nodes, so that faults have a place; fields of the text model come before those of a wrapper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from axon_compose.diagnostics import CheckpointError
from axon_compose.language.source import Entry, Mapping, Node, Scalar, Sequence, plain
from axon_compose.language.wrappers import OTHER_PARTS, TEXT_TYPES
from axon_compose.record import record

__all__ = ["CONFIG_KEY", "INFINITE", "INNER", "MODEL_TYPE", "Config", "description_in", "make_config"]

#: `model_type` in the config.json of a built folder.
MODEL_TYPE: Final = "axon_compose"
#: The key of its config.json that holds the description.
CONFIG_KEY: Final = "axon_compose"
#: Where models of text and images keep the part that is read here.
INNER: Final = ("text_config", "language_config", "llm_config")
#: How Python writes into JSON what JSON has no word for; it stands for no limit.
INFINITE: Final = ("Infinity", "-Infinity")


@record
class Config:
    """A config.json.

    Attributes:
        folder: Where it is, with the weights beside it.
        top: All of it.
        inner: The part about the text model, where it has one of its own.
        written: All of it as it stands, with the words for infinity that `top` and `inner` have null for.
        list_tensors: Gives the names of the tensors beside it; asked at most once, and only by families that need it.
    """

    folder: Path
    top: Mapping
    inner: Mapping | None = None
    written: Mapping | None = None
    list_tensors: Callable[[], frozenset[str]] = frozenset

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Names of the tensors beside it.

        Raises:
            CheckpointError: A file of weights is damaged.
        """
        return self.list_tensors()

    @property
    def model_types(self) -> list[str]:
        """`model_type` of the text model, or its default where that is left out, and of the whole, in this order."""
        found = [str(plain(part.entries["model_type"].node)) for part in self.parts() if "model_type" in part.entries]
        named = self.inner is not None and "model_type" in self.inner.entries
        text = [TEXT_TYPES[name] for name in found[:1] if name in TEXT_TYPES and not named]
        return list(dict.fromkeys([*text, *found]))

    @property
    def wrapped(self) -> bool:
        """Whether the text model is a part of a larger one, its fields in a part of their own or beside the others."""
        if self.inner is not None or any(isinstance(self.top.get(name), Mapping) for name in OTHER_PARTS):
            return True
        return any(name in TEXT_TYPES for name in self.model_types)

    def find(self, name: str) -> Entry | None:
        """The field of a name; null counts only if nothing else is there.

        `a.b` is a field inside a mapping, `a.*.b` what all mappings inside have that have it, if it is the same.
        """
        null = None
        for part in self.parts():
            entry = _inside(part, name)
            if entry is not None and not _is_null(entry.node):
                return entry
            null = null or entry
        return null

    def value(self, name: str) -> Any:
        """The field as plain data; None if it is not there."""
        entry = self.find(name)
        return None if entry is None else plain(entry.node)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """The fields that describe the text model: those of its part alone, where it has one."""
        if self.inner is not None:
            return iter(self.inner.entries.items())
        return ((name, entry) for name, entry in self.top.entries.items() if name not in OTHER_PARTS)

    def with_field(self, name: str, value: Node) -> Config:
        """The same with one field of the text model in place of what was there, or beside the others."""
        written = self.written or self.top
        inner = next((key for key in INNER if isinstance(written.get(key), Mapping)), None)
        if inner is None:
            changed = _with_entry(written, name, value)
        else:
            part = written.entries[inner].node
            assert isinstance(part, Mapping)
            changed = _with_entry(written, inner, _with_entry(part, name, value))
        return make_config(self.folder, changed, self.list_tensors)

    def parts(self) -> Iterator[Mapping]:
        """The parts in which a field is searched: the one about the text model first, then the whole."""
        if self.inner is not None:
            yield self.inner
        yield self.top


def make_config(folder: Path, written: Mapping, list_tensors: Callable[[], frozenset[str]]) -> Config:
    """The configuration that these nodes are."""
    top = _without_infinity(written)
    assert isinstance(top, Mapping)
    inner = next((part for name in INNER if isinstance(part := top.get(name), Mapping)), None)
    return Config(folder, top, inner, written, list_tensors)


def _with_entry(part: Mapping, name: str, node: Node) -> Mapping:
    key_span = part.entries[name].key_span if name in part.entries else node.span
    return Mapping({**part.entries, name: Entry(key_span, node)}, part.span)


def _without_infinity(node: Node) -> Node:
    """The nodes with null for infinity, which stands for no limit."""
    match node:
        case Scalar(value=str(text)) if text in INFINITE:
            return Scalar(None, node.span)
        case Sequence():
            return Sequence(tuple(map(_without_infinity, node.items)), node.span)
        case Mapping() if node.entries.keys() == {"__float__"}:  # transformers 5
            return _without_infinity(node.entries["__float__"].node)
        case Mapping():
            entries = {key: Entry(entry.key_span, _without_infinity(entry.node)) for key, entry in node.entries.items()}
            return Mapping(entries, node.span)
    return node


def _inside(part: Mapping, name: str) -> Entry | None:
    if name in part.entries:
        return part.entries[name]
    first, dot, rest = name.partition(".")
    if first == "*" and dot:
        found = [entry for below in part.entries.values() if (entry := _within(below.node, rest))]
        return found[0] if found and all(plain(entry.node) == plain(found[0].node) for entry in found) else None
    below = part.get(first) if dot else None
    return _within(below, rest)


def _within(node: Node | None, name: str) -> Entry | None:
    return _inside(node, name) if isinstance(node, Mapping) else None


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def description_in(config: Any) -> dict[str, Any]:
    """What `build` wrote about the model: `architecture`, all bases merged in, and `source` if it read a checkpoint.

    Args:
        config: The content of a config.json. A text in place of the architecture would be a path, and `extends` names
            another file: neither is followed.

    Raises:
        CheckpointError: AX560 it is not that of a built folder.
    """
    described: Any = config.get(CONFIG_KEY) if isinstance(config, dict) else None
    if isinstance(described, dict):
        architecture, source = described.get("architecture"), described.get("source", {})
        if isinstance(architecture, dict) and isinstance(source, dict) and "extends" not in architecture:
            return dict(described)
    hint = "`axon-compose build FILE --out DIR` writes such a folder"
    raise CheckpointError("AX560", "config.json does not describe a model that axon-compose has built", hint)
