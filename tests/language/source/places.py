"""Where a path leads in nodes; tests look places up with it."""

from __future__ import annotations

from collections.abc import Iterable

from axon_compose.diagnostics import Span
from axon_compose.language.source import Mapping, Node, Sequence


def locate(node: Node, path: Iterable[str | int], *, key: bool = False) -> Span:
    """The place of what `path` leads to, or of its nearest parent that exists.

    Args:
        node: Where the path begins.
        path: Keys of mappings and indices of sequences.
        key: Give the place of the last key instead of its value; for an index there is only the value.
    """
    span = node.span
    for step in path:
        if isinstance(node, Mapping) and step in node.entries:
            entry = node.entries[str(step)]
            node, span = entry.node, entry.key_span if key else entry.node.span
        elif isinstance(node, Sequence) and isinstance(step, int) and 0 <= step < len(node.items):
            node = node.items[step]
            span = node.span
        else:
            break
    return span
