"""The metadata of a GGUF file laid over the dims of a family file, every key accounted for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

from pydantic import ValidationError

from axon_compose.checkpoints.gguf._keys import ROPE_SCALING, SAME, USUAL, WITHOUT_EFFECT
from axon_compose.checkpoints.gguf._metadata import Metadata
from axon_compose.checkpoints.gguf._rope import FACTORS, SCALING_KEYS, rope_scaling
from axon_compose.checkpoints.huggingface._unhandled import report_unhandled, report_unsupported
from axon_compose.diagnostics import Problems
from axon_compose.language.document import FormulaError, Gguf, allowed_values, cached_parse, dim_values, is_formula
from axon_compose.language.source import Entry, Mapping, nodes_at, plain

__all__ = ["keys_used", "overlay_of"]


def overlay_of(metadata: Metadata) -> Callable[[Mapping, Problems], Mapping]:
    """What lays the sizes of a GGUF file over a family file; a file without `architectures` has its own."""
    return partial(_laid, metadata)


def keys_used(section: Gguf, dims: Iterable[str], metadata: Metadata) -> list[str]:
    """The keys that became dims."""
    written = (text for dim in dims for text in _texts(section, dim))
    keys = [key for text in written for key in _keys_in(text, metadata)]
    return list(dict.fromkeys(keys))


def _laid(metadata: Metadata, node: Mapping, problems: Problems) -> Mapping:
    written, dims = node.get("gguf"), node.get("dims")
    if not isinstance(written, Mapping):
        hint = "a file that reads GGUF has `gguf`, as most of the shipped families have"
        problems.error("AX605", "the file has no section `gguf`", node.span, help=hint)
        return node
    try:
        section = Gguf.model_validate(plain(written))
    except ValidationError:
        return node  # reported when the document is validated
    if not isinstance(dims, Mapping) or not section.architectures:
        return node
    overlay = _Overlay(section, metadata, problems)
    laid = overlay.dims(dims)
    overlay.check(laid)
    return Mapping({**node.entries, "dims": Entry(node.entries["dims"].key_span, laid)}, node.span)


class _Overlay:
    """One file, as a family reads it.

    Attributes:
        read: Keys, and tensors of rotary factors, that something reads.
    """

    def __init__(self, section: Gguf, metadata: Metadata, problems: Problems) -> None:
        self.section, self.metadata, self.problems = section, metadata, problems
        self.read: set[str] = set()

    def dims(self, written: Mapping) -> Mapping:
        """Every dim with its value in this file."""
        return Mapping({name: self.dim(name, entry, written) for name, entry in written.entries.items()}, written.span)

    def dim(self, name: str, entry: Entry, written: Mapping) -> Entry:
        if name == ROPE_SCALING and name not in self.section.fields:
            self.read |= {*SCALING_KEYS, *FACTORS}
            return self.entry(rope_scaling(self.metadata, self.theta(written), self.problems), "rope.scaling.type")
        texts = {text: list(_keys_in(text, self.metadata)) for text in _texts(self.section, name)}
        self.read.update(key for keys in texts.values() for key in keys)
        for text, keys in texts.items():
            try:
                return self.entry(self.metadata.value(text), keys[0] if keys else None)
            except KeyError:
                continue
            except FormulaError as error:
                span = self.metadata.span(keys[0] if keys else None, self.problems)
                message = f"the dim `{name}` cannot be computed from the metadata: {error.message}"
                self.problems.error("AX614", message, span, label=f"by `{text}`")
                return entry
        return entry

    def theta(self, written: Mapping) -> float:
        """Base of the rotary frequencies, in the file or by default."""
        default = written.get("rope_theta")
        value = self.metadata.keys.get("rope.freq_base", plain(default) if default else None)
        try:
            return float(value) if isinstance(value, int | float) else 10000.0
        except OverflowError:
            return math.inf

    def entry(self, value: Any, key: str | None) -> Entry:
        span = self.metadata.span(key, self.problems)
        if is_formula(value):
            self.problems.error("AX601", "a value of the metadata cannot be a formula", span)
            value = None
        return Entry(span, nodes_at(span, value))

    def check(self, dims: Mapping) -> None:
        """Report keys and factors that nothing reads, and values that the file does not support."""
        read = self.read | set(self.section.ignore)
        same = {key: f"={dim}" for key, dim in SAME.items() if key not in read and dim in dims.entries}
        only = {**same, **self.section.only}
        names = cache(partial(dim_values, dims))
        for key, value in self.metadata.keys.items():
            if key in only:
                if value not in (allowed := allowed_values(only[key], names)):
                    report_unsupported(key, value, allowed, self.metadata.span(key, self.problems), self.problems)
            elif key not in read | WITHOUT_EFFECT:
                message = f"`{key}` in the metadata is not handled by this family file"
                report_unhandled(key, self.metadata.span(key, self.problems), self.problems, message, "gguf")
        for name in FACTORS:
            if name in self.metadata.file.tensors and name not in read:
                message = f"the rotary factors `{name}` are not handled by this family file"
                report_unhandled(name, self.metadata.span(None, self.problems), self.problems, message, "gguf")


def _texts(section: Gguf, dim: str) -> list[str]:
    """The keys or formulas that a dim may come from."""
    written = section.fields.get(dim, USUAL.get(dim, []))
    return [written] if isinstance(written, str) else written


def _keys_in(text: str, metadata: Metadata) -> Iterator[str]:
    """The keys of the file that a key or a formula reads."""
    if not is_formula(text):
        yield from [text] if text in metadata.keys else []
    elif "keys" in cached_parse(text).names:
        yield from (key for key in metadata.keys if f"'{key}'" in text or f'"{key}"' in text)
