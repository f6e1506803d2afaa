"""The fields of a config.json laid over the dims of a family file, and every field accounted for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import ValidationError

from axon_compose.checkpoints.huggingface._harmless import HARMLESS
from axon_compose.checkpoints.huggingface._rope import ORIGINAL_LENGTH, ROPE_FIELDS, rope_fields
from axon_compose.checkpoints.huggingface._rope_twice import written_positions
from axon_compose.checkpoints.huggingface._unhandled import report_unhandled
from axon_compose.diagnostics import Problems, Span
from axon_compose.language.config import Config
from axon_compose.language.document import Document, HuggingFace, is_formula
from axon_compose.language.source import Entry, Mapping, Node, Scalar, Sequence, plain

__all__ = ["field_names", "fields_used", "overlay_of", "with_config"]


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
    overlay = _Overlay(section, config, problems)
    entries = {name: overlay.dim(name, entry) for name, entry in dims.entries.items()}
    overlay.check_fields()
    return Mapping(
        {**node.entries, "dims": Entry(node.entries["dims"].key_span, Mapping(entries, dims.span))}, node.span
    )


class _Overlay:
    def __init__(self, section: HuggingFace, config: Config, problems: Problems) -> None:
        self.section, self.config, self.problems = section, config, problems
        self.rope = rope_fields(config, problems, section.ignore)
        self.handled: set[str] = {*section.ignore, *section.only, *ROPE_FIELDS, ORIGINAL_LENGTH, *self.rope}

    def dim(self, name: str, entry: Entry) -> Entry:
        """A dim's value in this checkpoint: its field, or what the file has."""
        if name in self.section.tensors:
            return Entry(entry.key_span, Scalar(self.section.tensors[name] in self.config.tensors, entry.node.span))
        names = field_names(self.section, name)
        self.handled.update(names)
        found = next((field for each in names if (field := self._field(each)) is not None), None)
        if found is None or (_value(found) is None and is_formula(_value(entry.node))):
            return entry
        if is_formula(_value(found)):
            self.problems.error("AX601", "a field of config.json cannot be a formula", found.span)
            return entry
        return Entry(entry.key_span, found)

    def _field(self, name: str) -> Node | None:
        if name in self.rope:
            return _node(*self.rope[name])
        if name in ROPE_FIELDS:
            return None  # given by other fields, or null
        entry = self.config.find(name)
        return entry.node if entry else None

    def check_fields(self) -> None:
        """Report every field that may change the model and that nothing reads."""
        entry = self.config.find("model_type")
        if entry is not None and not set(self.config.model_types) & set(self.section.model_types):
            known = " and ".join(f"`{name}`" for name in self.section.model_types)
            message = f"the checkpoint is a `{self.config.model_types[0]}`, the file is for {known}"
            self.problems.warning("AX608", message, entry.node.span)
        for name, allowed in self.section.only.items():
            entry = self.config.find(name)
            values = allowed if isinstance(allowed, list) else [allowed]
            if entry is not None and plain(entry.node) is not None and plain(entry.node) not in values:
                shown = " or ".join(f"`{_shown(value)}`" for value in values)
                message = f"`{name}` is `{_shown(plain(entry.node))}`; this family file supports only {shown}"
                self.problems.error("AX603", message, entry.node.span)
        for name, entry in self.config.items():
            self._check_field(name, entry)

    def _check_field(self, name: str, entry: Entry) -> None:
        if name in HARMLESS or name in self.handled or plain(entry.node) is None or self._at_any_key(name):
            return
        if isinstance(entry.node, Mapping) and any(_is_at(field, name, inside=True) for field in self.handled):
            for key, below in entry.node.entries.items():
                self._check_field(f"{name}.{key}", below)
            return
        message = f"`{name}` in config.json is not handled by this family file"
        report_unhandled(name, entry.key_span, self.problems, message)

    def _at_any_key(self, name: str) -> bool:
        """Whether a field with `*` reads it, which needs the same value everywhere."""
        read = (field for field in self.handled if "*" in field and _is_at(field, name))
        return any(self.config.find(field) is not None for field in read)


def fields_used(document: Document, config: Config) -> list[str]:
    """The fields of a configuration that became dims, in the order of the file."""
    section = document.envelope.huggingface
    if section is None:
        return []
    names = (name for dim in document.envelope.dims for name in field_names(section, dim))
    positions = written_positions(config, Problems())
    read = [*(name for name in names if name not in ROPE_FIELDS), *(positions or ())[:1]]
    return list(dict.fromkeys(name for name in read if config.value(name) is not None))


def field_names(section: HuggingFace, dim: str) -> list[str]:
    """The fields that a dim may come from."""
    names = section.fields.get(dim, dim)
    return [names] if isinstance(names, str) else names


def _is_at(field: str, name: str, *, inside: bool = False) -> bool:
    """Whether a name is that of a handled field, or with `inside` of a mapping that holds it; `*` is any key."""
    wanted, given = field.split("."), name.split(".")
    if (len(given) >= len(wanted)) if inside else (len(given) != len(wanted)):
        return False
    return all(want in ("*", one) for want, one in zip(wanted, given, strict=False))


def _value(node: Node) -> Any:
    return node.value if isinstance(node, Scalar) else node


def _shown(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    return text or f"{value}"[:40]


def _node(value: Any, span: Span) -> Node:
    """Plain data as nodes that all stand at one place."""
    if isinstance(value, dict):
        return Mapping({key: Entry(span, _node(item, span)) for key, item in value.items()}, span)
    if isinstance(value, list):
        return Sequence(tuple(_node(item, span) for item in value), span)
    return Scalar(value, span)
