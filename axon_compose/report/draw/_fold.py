"""The stack as a person would write it down: layers that look alike once, with how often they repeat."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from axon_compose.language.document._stack_compress import compress
from axon_compose.plan import Layer, Plan, Use

__all__ = ["Card", "Group", "Node", "cards", "depth", "fold"]

_TOKEN: Final = re.compile(r"(\()|(\))(?:\*(\d+))?|k(\d+)(?:\*(\d+))?")


@dataclass
class Card:
    """One layer of the picture, which stands for one or more of the plan.

    Attributes:
        layer: The first of them.
        layers: All of them, in order.
    """

    layer: Layer
    layers: list[Layer] = field(default_factory=list)


@dataclass
class Group:
    """Cards that repeat in this order.

    Attributes:
        nodes: What repeats.
        times: How often.
    """

    nodes: list[Node]
    times: int


Node = Card | Group


def fold(plan: Plan) -> list[Node]:
    """The stack with its repetitions folded; every layer of the plan is on one card.

    Layers are alike if they would be drawn alike. What a layer reads from another may be given by the other's number or
    by how far back it is; whichever needs fewer cards is taken.
    """
    found = [_folded(plan.layers, source) for source in (_absolute, _relative)]
    return min(found, key=lambda nodes: sum(1 for _ in cards(nodes)))


def cards(nodes: Sequence[Node]) -> Iterator[Card]:
    """Every card from the top."""
    for node in nodes:
        if isinstance(node, Card):
            yield node
        else:
            yield from cards(node.nodes)


def depth(nodes: Sequence[Node]) -> int:
    """How many repetitions stand inside one another."""
    return max((1 + depth(node.nodes) for node in nodes if isinstance(node, Group)), default=0)


_Place = Callable[[int, int], int]


def _absolute(layer: int, source: int) -> int:
    return source


def _relative(layer: int, source: int) -> int:
    return source - layer


def _folded(layers: Sequence[Layer], place: _Place) -> list[Node]:
    numbers: dict[object, int] = {}
    names = [f"k{numbers.setdefault(_likeness(layer, place), len(numbers))}" for layer in layers]
    nodes = _parsed(compress(names), layers, names)
    order = count()
    for node in nodes:
        _deal(node, layers, order)
    return nodes


def _parsed(written: str, layers: Sequence[Layer], names: Sequence[str]) -> list[Node]:
    """The stack text of `compress` as cards and groups."""
    first = dict(zip(reversed(names), reversed(layers), strict=True))
    levels: list[list[Node]] = [[]]
    for opens, closes, times, kind, repeats in _TOKEN.findall(written):
        if opens:
            levels.append([])
        elif closes:
            nodes = levels.pop()
            levels[-1] += [Group(nodes, int(times))] if times else nodes
        else:
            card = Card(first[f"k{kind}"])
            levels[-1].append(Group([card], int(repeats)) if repeats else card)
    return levels[0]


def _deal(node: Node, layers: Sequence[Layer], order: Iterator[int]) -> None:
    """Give every card its layers, in the order of the stack."""
    if isinstance(node, Card):
        node.layers.append(layers[next(order)])
        node.layer = node.layers[0]
        return
    for _ in range(node.times):
        for inner in node.nodes:
            _deal(inner, layers, order)


def _likeness(layer: Layer, place: _Place) -> object:
    """What the picture shows of a layer."""
    branches = tuple(
        (
            tuple(
                (member.scale, member.keep, *(_use(use, layer.index, place) for use in member.uses()))
                for member in branch.members
            ),
            branch.pre and _use(branch.pre, layer.index, place),
            branch.post and _use(branch.post, layer.index, place),
            branch.connection and _use(branch.connection, layer.index, place),
            (branch.scale, branch.skip, branch.residual, branch.closes, branch.add),
        )
        for branch in layer.branches
    )
    owner = None if layer.owner is None else place(layer.index, layer.owner)
    return layer.block, branches, owner


def _use(use: Use, layer: int, place: _Place) -> object:
    sources = []
    for value, source in use.reads.items():
        where, _, rest = source.partition(".")
        sources.append((value, place(layer, int(where)), rest) if where.isdigit() else (value, source))
    rotated = bool(use.option("rope"))
    return use.name, use.type, use.size, use.active, use.cache, use.window, rotated, tuple(sources)
