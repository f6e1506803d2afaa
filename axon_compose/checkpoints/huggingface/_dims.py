"""The fields of a config.json laid over the dims of a family file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pydantic import ValidationError

from axon_compose.checkpoints.huggingface._fields import KINDS_OF_LAYERS, check_fields
from axon_compose.checkpoints.huggingface._rope import ORIGINAL_LENGTH, ROPE_FIELDS, key_of_rope, rope_fields, rope_key
from axon_compose.checkpoints.huggingface._rope_twice import written_positions
from axon_compose.checkpoints.huggingface._unhandled import report_unsupported
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config
from axon_compose.language.document import Document, HuggingFace, ModelType, is_formula
from axon_compose.language.source import Entry, Mapping, Node, Scalar, nodes_at, plain

__all__ = ["field_names", "fields_used", "overlay_of", "rope_keys", "with_config"]


def overlay_of(config: Config) -> Callable[[Mapping, Problems], Mapping]:
    """What lays the sizes of a checkpoint over a family file; see `with_config`."""
    return partial(_laid, config)


def _laid(config: Config, node: Mapping, problems: Problems) -> Mapping:
    return with_config(node, config, problems)


def with_config(node: Mapping, config: Config, problems: Problems) -> Mapping:
    """A family file with the sizes of one checkpoint; a file without `model_types` has its own and stays as it is.

    Args:
        node: The file, bases merged in.
        config: The checkpoint's config.json.
        problems: Collects every field that the file does not handle.

    Returns:
        The file, values of `dims` replaced by those of the configuration.
    """
    written, dims = node.get("huggingface"), node.get("dims")
    if not isinstance(written, Mapping):
        hint = "a file that reads checkpoints has `huggingface`, as the shipped families have"
        problems.error("AX605", "the file has no section `huggingface`", node.span, help=hint)
        return node
    try:
        section = HuggingFace.model_validate(plain(written))
    except ValidationError:
        return node  # reported when the document is validated
    if not isinstance(dims, Mapping) or not section.model_types:
        return node
    overlay = _Overlay(node, section, config, problems)
    laid = overlay.dims()
    check_fields(config, section, overlay.of_type, overlay.handled, laid, problems)
    return Mapping({**node.entries, "dims": Entry(node.entries["dims"].key_span, laid)}, node.span)


class _Overlay:
    """One configuration, as a file reads it.

    Attributes:
        of_type: What is particular to its model type.
        rope: Positions in the words of the option `rope`, by the names of their dims.
        handled: Fields that something reads.
    """

    def __init__(self, node: Mapping, section: HuggingFace, config: Config, problems: Problems) -> None:
        self.node, self.section, self.config, self.problems = node, section, config, problems
        self.model_type = _type_of(section, config)
        self.of_type = section.per_type.get(self.model_type, ModelType())
        dims = node.get("dims")
        assert isinstance(dims, Mapping)
        self.rope = rope_fields(config, problems, section.ignore, self._number, rope_keys(section, dims.entries))
        self.handled = {*section.ignore, *self.of_type.ignore, *section.only, *ROPE_FIELDS, ORIGINAL_LENGTH, *self.rope}

    def dims(self) -> Mapping:
        """Every dim with its value in this checkpoint."""
        written = self.node.get("dims")
        assert isinstance(written, Mapping)
        return Mapping({name: self._dim(name, entry) for name, entry in written.entries.items()}, written.span)

    def _dim(self, name: str, entry: Entry) -> Entry:
        """A dim's value in this checkpoint: its field, the default of the model type, or what the file has."""
        if name in self.section.tensors:
            return Entry(entry.key_span, Scalar(self.section.tensors[name] in self.config.tensors, entry.node.span))
        names = [field for field in field_names(self.section, name) if field not in self.of_type.ignore]
        self.handled.update(names)
        for each in names:
            if each in self.rope:  # null too is what the configuration says
                value, span = self.rope[each]
                return Entry(span, nodes_at(span, value))
        field, found = next(((each, at) for each in names if (at := self._field(each)) is not None), ("", None))
        if found is None:
            return self._default(name) or entry
        if _value(found.node) is None and is_formula(_value(entry.node)):
            return entry
        if is_formula(_value(found.node)):
            self.problems.error("AX601", "a field of config.json cannot be a formula", found.node.span)
            return entry
        if isinstance(_value(entry.node), bool) and not isinstance(_value(found.node), bool | None):
            report_unsupported(field, plain(found.node), (True, False), found.node.span, self.problems)
            return entry
        if field in KINDS_OF_LAYERS and plain(found.node) == [] and _value(entry.node) is None:
            self.problems.error("AX603", f"`{field}` is empty; without it, the family knows the kinds", found.key_span)
        return found

    def _field(self, name: str) -> Entry | None:
        if name in ROPE_FIELDS:
            return None  # given by other fields, or null
        key = key_of_rope(name)
        return self.config.find(name) if key is None else rope_key(self.config, key)

    def _default(self, name: str) -> Entry | None:
        """What checkpoints of this model type mean by a missing field."""
        node: Node | None = self.node
        for key in ("huggingface", "per_type", self.model_type, "defaults"):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node.entries.get(name) if isinstance(node, Mapping) else None

    def _number(self, name: str) -> Any:
        """A field as plain data, or the default of its dim where that is a number."""
        value = self.config.value(name)
        dims = self.node.get("dims")
        if value is None and isinstance(dims, Mapping) and (node := dims.get(name)) is not None:
            value = plain(node)
        return None if is_formula(value) else value


def fields_used(document: Document, config: Config) -> list[str]:
    """The fields of a configuration that became dims, in the order of the file."""
    section = document.huggingface
    if section is None:
        return []
    without_effect = section.per_type.get(_type_of(section, config), ModelType()).ignore
    fields = (name for dim in document.envelope.dims for name in field_names(section, dim))
    names = (name for name in fields if name not in without_effect)
    positions = written_positions(config, Problems())
    read = [*(name for name in names if name not in ROPE_FIELDS), *(positions or ())[:1]]
    return list(dict.fromkeys(name for name in read if config.value(name) is not None))


def rope_keys(section: HuggingFace, dims: Iterable[str]) -> list[str]:
    """Keys of the mapping about positions that dims read by name."""
    fields = (key_of_rope(field) for name in dims for field in field_names(section, name))
    return [key for key in fields if key is not None]


def _type_of(section: HuggingFace, config: Config) -> str:
    """The model type as which the file reads a configuration; empty if it is for none of them."""
    return next((name for name in config.model_types if name in section.model_types), "")


def field_names(section: HuggingFace, dim: str) -> list[str]:
    """The fields that a dim may come from."""
    names = section.fields.get(dim, dim)
    return [names] if isinstance(names, str) else names


def _value(node: Node) -> Any:
    return node.value if isinstance(node, Scalar) else node
