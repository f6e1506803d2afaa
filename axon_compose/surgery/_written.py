"""Pieces of a file as plain data and as nodes: branches in their long and short form, overrides, places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from axon_compose.diagnostics import Span
from axon_compose.language.source import Entry, Node, Sequence, nodes_at
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.plan import layer_ranges

__all__ = ["grouped", "long_branch", "marked", "short_branch"]


def marked(node: Node, path: tuple[str | int, ...], span: Span) -> Node:
    """The node with everything below a path at another place."""
    if not path:
        return _at(node, span)
    step, rest = path[0], path[1:]
    if isinstance(node, MappingNode) and step in node.entries:
        entry = node.entries[str(step)]
        key = entry.key_span if rest else span
        return MappingNode({**node.entries, str(step): Entry(key, marked(entry.node, rest, span))}, node.span)
    if isinstance(node, Sequence) and isinstance(step, int):
        items = [marked(item, rest, span) if at == step else item for at, item in enumerate(node.items)]
        return Sequence(tuple(items), node.span)
    return node


def _at(node: Node, span: Span) -> Node:
    if isinstance(node, MappingNode):
        return MappingNode({key: Entry(span, _at(entry.node, span)) for key, entry in node.entries.items()}, span)
    if isinstance(node, Sequence):
        return replace(node, items=tuple(_at(item, span) for item in node.items), span=span)
    return nodes_at(span, node.value)


def long_branch(item: Any) -> dict[str, Any]:
    """A branch as a mapping, its members too."""
    branch = {"use": item} if isinstance(item, str) else deepcopy(dict(item))
    if "parallel" in branch:
        branch["parallel"] = [{"use": each} if isinstance(each, str) else dict(each) for each in branch["parallel"]]
    return branch


def short_branch(written: Mapping[str, Any]) -> Any:
    """A branch in its shortest form."""
    branch = dict(written)
    if "parallel" in branch:
        branch["parallel"] = [each["use"] if each.keys() == {"use"} else each for each in branch["parallel"]]
    return branch["use"] if branch.keys() == {"use"} else branch


def grouped(changes: Mapping[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One override for all layers with the same changes."""
    groups: dict[str, list[int]] = {}
    for layer in sorted(changes):
        groups.setdefault(repr(changes[layer]), []).append(layer)
    for layers in groups.values():
        yield {"layers": layer_ranges(layers), "set": changes[layers[0]]}
