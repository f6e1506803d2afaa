"""The document: what a file says, validated and merged, with the place of everything; formulas of `dims` resolved."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import field
from typing import TYPE_CHECKING, Any

from axon_compose.diagnostics import Position, Span
from axon_compose.language.document._sections import Envelope
from axon_compose.language.document.formula import Meter
from axon_compose.language.source import Mapping, Node, Scalar, Sequence, plain
from axon_compose.record import record

if TYPE_CHECKING:
    from axon_compose.language.document._gguf import Gguf
    from axon_compose.language.document._huggingface import HuggingFace

__all__ = ["Document", "Path", "place", "within"]

Path = tuple[str | int, ...]


def place(node: Node, path: Path, *, key: bool = False) -> Span:
    """Where `path` is in the file: the value, or its key.

    Steps that short forms leave out (a list for `{branches: […]}`, a name for `{use: …}`) are skipped; a step that
    is missing ends the walk at its parent's key.
    """
    span, key_span = node.span, node.span
    for step in path:
        if isinstance(node, Mapping) and isinstance(step, str):
            entry = node.entries.get(step)
            if entry is None:
                break
            node, key_span, span = entry.node, entry.key_span, entry.node.span
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            span = key_span = node.span
    place = key_span if key or not isinstance(node, Scalar) else span
    return _first_key(node, place)


def _first_key(node: Node, place: Span) -> Span:
    """For a whole file its first key: a caret under every line would say nothing."""
    if isinstance(node, Mapping) and place == node.span and place.start.line != place.end.line and node.entries:
        return next(iter(node.entries.values())).key_span
    return place


def within(span: Span, start: int, end: int, length: int) -> Span:
    """The characters `start` to `end` of a text of `length` that stands at `span`.

    The whole span if the text is folded or escaped in the file, so that offsets are not positions in the file.
    """
    width = span.end.column - span.start.column
    quote = (width - length) // 2
    if span.start.line != span.end.line or quote not in (0, 1) or width != length + 2 * quote:
        return span
    line, first = span.start.line, span.start.column + quote
    return Span(span.file, Position(line, first + start), Position(line, first + max(end, start + 1)))


@record
class Document:
    """A whole file, with its bases merged in.

    Attributes:
        envelope: The sections, validated; faulty entries are left out.
        dims: Values of `dims`, formulas resolved.
        node: The merged source, for places.
        broken: Paths `(section,)` or `(section, name)` whose faults are already reported.
        work: What its formulas have cost so far.
    """

    envelope: Envelope
    dims: MappingABC[str, Any]
    node: Mapping
    broken: frozenset[Path] = field(default_factory=frozenset)
    work: Meter = field(default_factory=Meter, compare=False)

    @property
    def huggingface(self) -> HuggingFace | None:
        """The section on checkpoints in the format of Hugging Face."""
        return getattr(self.envelope, "huggingface", None)

    @property
    def gguf(self) -> Gguf | None:
        """The section on GGUF files."""
        return getattr(self.envelope, "gguf", None)

    def __repr__(self) -> str:
        envelope = self.envelope
        return f"<Document {envelope.name}: {len(envelope.components)} components, {len(envelope.blocks)} blocks>"

    def place(self, *path: str | int, key: bool = False) -> Span:
        """Where a path of keys and indices is in the file."""
        return place(self.node, path, key=key)

    def names(self) -> dict[str, str]:
        """Names of components and blocks; each stands for itself in formulas."""
        known = {**self.envelope.components, **self.envelope.blocks}
        broken = [path[1] for path in self.broken if len(path) == 2 and path[0] in ("components", "blocks")]
        return {name: name for name in [*known, *map(str, broken)]}

    def to_dict(self) -> dict[str, Any]:
        """The merged file as plain data: what `show --stage document` prints and a built folder keeps."""
        data = plain(self.node)
        assert isinstance(data, dict)
        return data
