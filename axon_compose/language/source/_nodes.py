"""What a YAML text is made of, with the place of everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Any

from axon_compose.diagnostics import Span
from axon_compose.record import record

__all__ = ["Entry", "Mapping", "Node", "Scalar", "Sequence", "Value", "nodes_at", "plain"]

Value = None | bool | int | float | str


@record
class Scalar:
    """A value without parts; `quoted` distinguishes the string `"12"` from the number `12`."""

    value: Value
    span: Span
    quoted: bool = False


@record
class Sequence:
    """An ordered list of nodes."""

    items: tuple[Node, ...]
    span: Span


@record
class Entry:
    """One `key: value` of a mapping, with the place of the key."""

    key_span: Span
    node: Node


@record
class Mapping:
    """Keys (always text, never twice) to nodes, in file order."""

    entries: dict[str, Entry] = field(hash=False)
    span: Span

    def get(self, key: str) -> Node | None:
        """The node at `key`, or None."""
        entry = self.entries.get(key)
        return entry.node if entry else None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Pairs of key and node in file order."""
        return ((key, entry.node) for key, entry in self.entries.items())


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The node as plain Python data, places forgotten."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key: plain(value) for key, value in node.items()}


def nodes_at(span: Span, data: Any) -> Node:
    """Plain data as nodes that are all at one place; the inverse of `plain`."""
    if isinstance(data, dict):
        return Mapping({key: Entry(span, nodes_at(span, item)) for key, item in data.items()}, span)
    if isinstance(data, list):
        return Sequence(tuple(nodes_at(span, item) for item in data), span)
    return Scalar(data, span)
