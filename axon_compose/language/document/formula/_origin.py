"""Where a value in a formula comes from: which part of which named value it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from axon_compose.language.document.formula._tree import Call, Choice, Index, Logic, Name, Node

__all__ = ["Origin", "origin"]

#: A name, then keys and positions inside its value.
Origin = tuple[str | int, ...]


def origin(node: Node, value_of: Callable[[Node], Any]) -> Origin | None:
    """The part of a named value that a node passes on as it is; None for what is computed.

    Args:
        node: A part of a formula that has a value.
        value_of: Gives the value of any part.
    """
    match node:
        case Name():
            return (node.id,)
        case Index():
            base = origin(node.base, value_of)
            keys = [value_of(key) for key in node.keys]
            return (*base, *keys) if base and all(isinstance(key, str | int) for key in keys) else None
        case Call(function="at"):
            base = origin(node.arguments[0], value_of)
            key = value_of(node.arguments[1])
            inside = isinstance(value_of(node.arguments[0]), list | tuple)
            return (*base, key) if base and inside and isinstance(key, int) else base
        case Choice():
            return origin(node.then if value_of(node.condition) else node.otherwise, value_of)
        case Logic():
            decisive = node.operator == "or"
            *before, last = node.operands
            deciding = next((operand for operand in before if bool(value_of(operand)) == decisive), last)
            return origin(deciding, value_of)
    return None
