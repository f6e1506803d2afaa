"""The checked tree of a formula. Every node knows which characters of the text it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axon_compose.record import record

__all__ = [
    "Arithmetic",
    "Call",
    "Choice",
    "Comparison",
    "Comprehension",
    "Index",
    "ListOf",
    "Literal",
    "Logic",
    "MappingOf",
    "Name",
    "Node",
    "Unary",
    "free_names",
]


@record
class Node:
    """A part of a formula: characters `start` up to but not including `end`."""

    start: int
    end: int

    def children(self) -> tuple[Node, ...]:
        """The parts of this part."""
        return ()


@record
class Literal(Node):
    """A number, a text, true, false or null."""

    value: Any


@record
class Name(Node):
    """A value given by name."""

    id: str


@record
class ListOf(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.items


@record
class Comprehension(Node):
    """`[item for name in items if condition]`: `item` once for every part of `items`, which `name` stands for."""

    item: Node
    name: Name
    items: Node
    condition: Node | None

    def children(self) -> tuple[Node, ...]:
        return (self.item, self.items, *((self.condition,) if self.condition else ()))


@record
class MappingOf(Node):
    """`{a: b}`."""

    pairs: tuple[tuple[Node, Node], ...]

    def children(self) -> tuple[Node, ...]:
        return tuple(node for pair in self.pairs for node in pair)


@record
class Unary(Node):
    """`-a`, `+a`, `not a`."""

    operator: str
    operand: Node

    def children(self) -> tuple[Node, ...]:
        return (self.operand,)


@record
class Arithmetic(Node):
    """`a + b - c`, from left to right. Flat, so that a long sum is not a deep tree."""

    operands: tuple[Node, ...]
    operators: tuple[str, ...]

    def children(self) -> tuple[Node, ...]:
        return self.operands


@record
class Comparison(Node):
    """`a < b <= c`: true if every neighbouring pair compares true."""

    operands: tuple[Node, ...]
    operators: tuple[str, ...]

    def children(self) -> tuple[Node, ...]:
        return self.operands


@record
class Logic(Node):
    """`a and b and c`, or with `or`: the operand that decides."""

    operator: str
    operands: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.operands


@record
class Choice(Node):
    """`then if condition else otherwise`."""

    condition: Node
    then: Node
    otherwise: Node

    def children(self) -> tuple[Node, ...]:
        return (self.then, self.condition, self.otherwise)


@record
class Index(Node):
    """`a[k]`, and `a[k][l]` flat."""

    base: Node
    keys: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return (self.base, *self.keys)


@record
class Call(Node):
    """`min(a, b)`."""

    function: str
    arguments: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.arguments


def free_names(node: Node, bound: frozenset[str] = frozenset()) -> Iterator[Name]:
    """Every use of a name whose value comes from outside, in the order of the text.

    Args:
        node: Where to look.
        bound: Names that stand for the part of a list there.
    """
    match node:
        case Name():
            if node.id not in bound:
                yield node
        case Comprehension():
            inside = bound | {node.name.id}
            yield from free_names(node.item, inside)
            yield from free_names(node.items, bound)
            if node.condition:
                yield from free_names(node.condition, inside)
        case _:
            for child in node.children():
                yield from free_names(child, bound)
