"""The stack in characters, for a terminal: what the picture shows, with brackets around what repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from axon_compose.plan import Plan, Use, layer_numbers, total_parameters
from axon_compose.report import Style
from axon_compose.report.draw._box import kind_of_cache, type_name
from axon_compose.report.draw._columns import NARROW, Columns, Part
from axon_compose.report.draw._family import family, kept_words
from axon_compose.report.draw._fold import Card, Group, Node, cards, depth, fold
from axon_compose.report.draw._notes import embedding_notes, head_notes, notes

__all__ = ["characters"]

#: Columns of a picture at most.
WIDE: Final = 110
#: Signs of caches: a wedge that grows, a window on a strip, a filled square.
_SIGNS: Final = {"grows": "◢", "window": "◨", "state": "■", "both": "▣"}


def characters(plan: Plan, style: Style, width: int) -> list[str]:
    """The stack as lines. Every number is exact: embedding, layers, norm and head add up to the model.

    Args:
        plan: The model.
        style: Whether there are colours.
        width: Columns of the terminal; boxes that would be too narrow to read are wider.
    """
    nodes = fold(plan)
    label = max(map(len, _labels(nodes)), default=0)
    indent = depth(nodes) * len(_bracketed("", label, "", ""))
    ends = [_end(use, said) for use, said in _on_the_stream(plan)]
    every = [*ends, *(part for card in cards(nodes) for part in _parts(plan, card))]
    columns = Columns(every, total_parameters(plan), max(min(width, WIDE) - indent, NARROW), style)
    before, *after = ([" " * indent + line for line in columns.bare(end)] for end in ends)
    return [*before, *_stacked(plan, nodes, columns, label)[0], *(line for lines in after for line in lines)]


def _on_the_stream(plan: Plan) -> Iterator[tuple[Use, Sequence[str]]]:
    """What comes before and after the layers."""
    yield plan.embedding, embedding_notes(plan)
    if plan.residual:
        yield plan.residual, ()
    if plan.final_norm:
        yield plan.final_norm, ()
    yield plan.head, head_notes(plan)


def _end(use: Use, said: Sequence[str]) -> Part:
    return Part(use.name, "", _type(use), said, use.size, 1, family(use))


def _parts(plan: Plan, card: Card) -> Iterator[Part]:
    """The components of a layer, branch by branch."""
    for branch in card.layer.branches:
        if branch.add is not None:
            yield Part(branch.add, "+", said=(f"× {branch.scale:g}",) if branch.scale != 1 else ())
        for number, member in enumerate(branch.members):
            mark = "∥" if number else "+" if branch.adds else ""
            yield _part(plan, mark, member.use, notes(branch, member, card), card)


def _part(plan: Plan, mark: str, use: Use, noted: Sequence[str], card: Card) -> Part:
    own = card.layer.owner is None
    sign = f"{_SIGNS[kind_of_cache(use)]} " if use.cache is not None else ""
    kept = [sign + said] if (said := ", ".join(kept_words(use, plan))) else []
    active = [f"{use.active:,} active"] if own and use.active != use.size else []
    size = use.size if own else 0
    return Part(use.name, mark, _type(use), (*kept, *active, *noted), size, len(card.layers), family(use))


def _type(use: Use) -> str:
    return "" if type_name(use) == use.name else type_name(use)


# Brackets.


def _labels(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Group):
            yield f"×{node.times}"
            yield from _labels(node.nodes)


def _stacked(plan: Plan, nodes: Sequence[Node], columns: Columns, label: int) -> tuple[list[str], int]:
    """Lines of cards and groups below each other, and how many brackets stand at their left."""
    drawn = [
        _grouped(plan, node, columns, label) if isinstance(node, Group) else (_card(plan, node, columns), 0)
        for node in nodes
    ]
    most = max(level for _, level in drawn)
    blank = len(_bracketed("", label, "", ""))
    return [" " * blank * (most - level) + line for lines, level in drawn for line in lines], most


def _grouped(plan: Plan, group: Group, columns: Columns, label: int) -> tuple[list[str], int]:
    """What repeats, with a bracket at its left."""
    lines, level = _stacked(plan, group.nodes, columns, label)
    middle = (len(lines) - 1) // 2
    signs = ["┌", *"│" * (len(lines) - 2), "└"]
    signs[middle] = "┤"
    said = ["" if row != middle else f"×{group.times}" for row in range(len(lines))]
    entries = zip(said, signs, lines, strict=True)
    return [_bracketed(word, label, sign, line) for word, sign, line in entries], level + 1


def _bracketed(said: str, label: int, sign: str, line: str) -> str:
    return f"{said:>{label}} {sign or ' '} {line}"


def _card(plan: Plan, card: Card, columns: Columns) -> list[str]:
    """One layer as a box, and the parameters of all layers for which it stands."""
    layer, times = card.layer, len(card.layers)
    numbers = layer_numbers((layer.index for layer in card.layers), most=4)
    title = numbers if layer.block == "=" else f"{layer.block}, {numbers}"
    size = f"{times} × {layer.size:,}" if times > 1 else f"{layer.size:,}"
    return list(columns.box(title, size if layer.owner is None else "shared", list(_parts(plan, card))))
