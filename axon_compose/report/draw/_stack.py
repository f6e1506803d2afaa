"""The stack from top to bottom: cards on the residual stream, brackets around what repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from axon_compose.plan import Branch, Member, Plan, Use, layer_numbers, total_parameters
from axon_compose.report.draw._arcs import Arcs
from axon_compose.report.draw._box import PAD, Box, type_name
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._family import kept_words
from axon_compose.report.draw._fold import Card, Group, Node
from axon_compose.report.draw._notes import notes, reads
from axon_compose.report.draw._words import fitted, width

__all__ = ["BRACKET", "Frame", "Stack"]

#: Width of a bracket with its number.
BRACKET: Final = 34.0
#: From the left edge of a card to the stream, and from the stream to the boxes.
STREAM: Final = 20.0
BRANCH: Final = 46.0
BAR: Final = 6.0
GAP: Final = 4.0
BETWEEN: Final = 18.0


class Frame:
    """Where cards stand: the left and right edge of all."""

    def __init__(self, left: float, right: float) -> None:
        self.left, self.right = left, right
        self.stream = left + STREAM
        self.box = left + BRANCH
        self.room = right - 12 - self.box


class Stack:
    """Draws a plan from the embedding to the head; `y` is where the next thing goes.

    Args:
        plan: The model.
        canvas: Where it is drawn.
        frame: Edges of the cards.
        y: Top.
    """

    def __init__(self, plan: Plan, canvas: Canvas, frame: Frame, y: float) -> None:
        self.plan, self.canvas, self.frame, self.y = plan, canvas, frame, y
        self.total = total_parameters(plan)
        self.arcs = Arcs()
        self.cards: dict[int, Card] = {}
        self.boxes: dict[tuple[int, str], tuple[float, float]] = {}
        self.tops: dict[int, tuple[float, float]] = {}

    # What stands before and after the layers.

    def end(self, use: Use, said: tuple[str, ...] = ()) -> tuple[float, float]:
        """A component on the stream itself; returns the point at its right where arcs begin."""
        frame, box = self.frame, Box(use, 1, self.total, notes=said)
        room = frame.right - frame.left
        height = box.height(room)
        box.draw(self.canvas, frame.left, self.y, room, height)
        self.y += height
        return frame.right, self.y - height / 2

    def norm(self, use: Use) -> None:
        """The norm after the stack, a bar with its name."""
        canvas, frame, y = self.canvas, self.frame, self.y
        canvas.rect(frame.left, y, frame.right - frame.left, 24, "norm", round_=5)
        canvas.pair(frame.left + PAD, y + 16.5, use.name, fitted(type_name(use), 220, 11))
        canvas.words(frame.right - PAD, y + 16.5, f"{use.size:,}", "small end")
        self.y += 24

    def arrow(self) -> None:
        """The stream, from one thing down to the next."""
        x = self.frame.stream
        self.canvas.line([(x, self.y), (x, self.y + BETWEEN - 5)], "flow")
        self.canvas.tip(x, self.y + BETWEEN, "down", "ink")
        self.y += BETWEEN

    # Layers.

    def nodes(self, nodes: Sequence[Node], level: int = 0) -> None:
        """Cards and groups below each other, with arrows between them."""
        for number, node in enumerate(nodes):
            if number:
                self.arrow()
            if isinstance(node, Card):
                self.card(node)
            else:
                self.group(node, level)

    def group(self, group: Group, level: int) -> None:
        """What repeats, with a bracket at its left."""
        top = self.y
        self.nodes(group.nodes, level + 1)
        x = self.frame.left - 16 - BRACKET * _inside(group.nodes)
        middle = (top + self.y) / 2
        for start, stop in ((top, middle - 11), (self.y, middle + 11)):
            self.canvas.line([(x + 5, start), (x, start), (x, stop)], "bracket")
        self.canvas.words(x, middle + 4.5, f"×{group.times}", "times middle")

    def card(self, card: Card) -> None:
        """One layer."""
        canvas, frame, layer = self.canvas, self.frame, card.layer
        top, place = self.y, len(canvas.shapes)
        self.tops[layer.index] = (frame.right, top + 12)
        for member in card.layers:
            self.cards[member.index] = card
        numbers = layer_numbers((member.index for member in card.layers), most=4)
        room = frame.room - width(numbers, 11) - 8
        name = "" if layer.block == "=" else layer.block
        canvas.words(frame.box, top + 18, fitted(name, room, 13, strong=True), "name")
        canvas.words(frame.right - 12, top + 18, numbers, "small quiet end")
        self.y = top + 28
        for branch in layer.branches:
            self.branch(branch, card)
        bottom = self.y
        below = Canvas()
        below.rect(frame.left, top, frame.right - frame.left, bottom - top, "panel", round_=8)
        below.line([(frame.stream, top), (frame.stream, bottom)], "flow")
        canvas.shapes[place:place] = below.shapes
        if layer.owner is not None:
            self.arcs.add(("layer", layer.owner), self.tops[self.cards[layer.owner].layer.index],
                          (frame.right, top + 12), weights=True)  # fmt: skip

    def branch(self, branch: Branch, card: Card) -> None:
        """One branch of the residual stream: norms as bars before and after, members in parallel."""
        if branch.add is not None:
            self.add(branch)
            return
        frame = self.frame
        left = frame.box if branch.adds else frame.left + 8
        room = frame.right - 12 - left
        if branch.connection:
            self.bar(branch.connection, frame.left + 8, frame.right - 20 - frame.left)
        top = self.y
        if branch.pre:
            self.bar(branch.pre, left, room)
        rows = self.members(branch, card, left, room)
        if branch.post:
            self.y += GAP
            self.bar(branch.post, left, room)
            self.y -= GAP
        if branch.adds:
            self.flow(top + (BAR / 2 if branch.pre or rows else 12), self.y - (BAR / 2 if branch.post else 11))
        self.y += 12

    def flow(self, out: float, back: float) -> None:
        """The stream leaves to a branch and is added to on the way back."""
        canvas, x, left = self.canvas, self.frame.stream, self.frame.box
        canvas.line([(x, out), (left - 5, out)], "flow")
        canvas.tip(left, out, "right", "ink")
        canvas.line([(left, back), (x + 11, back)], "flow")
        canvas.tip(x + 7, back, "left", "ink")
        self.plus(back)

    def plus(self, y: float) -> None:
        """The sign of a sum, on the stream."""
        x = self.frame.stream
        self.canvas.circle(x, y, 6, "plus")
        self.canvas.path(f"M{x - 3.5:g} {y:g}H{x + 3.5:g}M{x:g} {y - 3.5:g}V{y + 3.5:g}", "flow")

    def add(self, branch: Branch) -> None:
        """A kept output that is added here."""
        middle = self.y + 6
        factor = f"{branch.scale:g} × " if branch.scale != 1 else ""
        self.canvas.words(self.frame.box, middle + 4, f"+ {factor}{branch.add}", "small quiet")
        self.canvas.line([(self.frame.box - 4, middle), (self.frame.stream + 11, middle)], "flow dashed")
        self.canvas.tip(self.frame.stream + 7, middle, "left", "ink")
        self.plus(middle)
        self.y += 24

    def bar(self, norm: Use, x: float, room: float) -> None:
        """A norm, or a connection to the residual state."""
        tip = f"{norm.name}: {type_name(norm)}, {norm.size:,} parameters"
        self.canvas.rect(x, self.y, room, BAR, "norm", round_=3, tip=tip)
        self.y += BAR + GAP

    def members(self, branch: Branch, card: Card, left: float, room: float) -> bool:
        """Components side by side; whether one has a norm of its own before it."""
        members = branch.members
        each = (room - 10 * (len(members) - 1)) / len(members)
        boxes = [self.box(branch, member, card) for member in members]
        before = any(member.pre for member in members)
        top = self.y + (BAR + GAP if before else 0)
        height = max(box.height(each) for box in boxes)
        after = BAR + GAP if any(member.post for member in members) else 0
        for number, (member, box) in enumerate(zip(members, boxes, strict=True)):
            x = left + number * (each + 10)
            if member.pre:
                self.y = top - BAR - GAP
                self.bar(member.pre, x, each)
            box.draw(self.canvas, x, top, each, height)
            if member.post:
                self.y = top + height + GAP
                self.bar(member.post, x, each)
            self.share(member.use, card, (left + room, top + height / 2))
        self.y = top + height + after
        return before

    def box(self, branch: Branch, member: Member, card: Card) -> Box:
        """A component with its notes."""
        borrowed = card.layer.owner is not None
        kept = kept_words(member.use, self.plan)
        return Box(member.use, len(card.layers), self.total, kept, notes(branch, member, card), borrowed)

    def share(self, use: Use, card: Card, anchor: tuple[float, float]) -> None:
        """Arcs from what a component reads, and the point from which others read it."""
        x, y = anchor
        for layer in card.layers:
            self.boxes[layer.index, use.key] = (x, y + 6)
        for _, source in reads(use):
            place, key, *_ = source.split(".")
            origin = self.boxes.get((int(place), key)) if place.isdigit() else self.boxes.get((-1, "embedding"))
            if origin:
                self.arcs.add((origin, source.rpartition(".")[2]), origin, (x, y - 6), weights=False)


def _inside(nodes: Sequence[Node]) -> int:
    """How many brackets stand inside."""
    return max((1 + _inside(node.nodes) for node in nodes if isinstance(node, Group)), default=0)
