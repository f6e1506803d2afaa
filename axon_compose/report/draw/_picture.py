"""The picture of a model: title, stack, legend."""

from __future__ import annotations

from typing import Final

from axon_compose.plan import Plan
from axon_compose.report.draw._arcs import LANE
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._fold import Node, depth, fold
from axon_compose.report.draw._legend import legend
from axon_compose.report.draw._notes import embedding_notes, head_notes
from axon_compose.report.draw._palette import Theme
from axon_compose.report.draw._stack import BRACKET, Frame, Stack
from axon_compose.report.draw._sums import facts
from axon_compose.report.draw._words import fitted
from axon_compose.report.draw._words import width as width_of

__all__ = ["WIDTH", "picture"]

#: Natural width in pixels.
WIDTH: Final = 560.0
MARGIN: Final = 20.0


def picture(plan: Plan, *, width: float = WIDTH, theme: Theme = "both", inside: bool = False) -> str:
    """The stack of a model as an SVG.

    Args:
        plan: The model.
        width: In pixels; the height comes of it.
        theme: Colours: light, dark, or what the reader's system prefers.
        inside: It stands inside a page, which has the title, the margins and the style sheet.

    Returns:
        The same text for the same plan, always.
    """
    nodes = fold(plan)
    margin = 1.0 if inside else MARGIN
    left = margin + BRACKET * depth(nodes)
    lanes = 0
    while True:  # how many lanes the arcs need is known when the stack is drawn
        frame = Frame(left, width - margin - (lanes * LANE + 8 if lanes else 0))
        canvas = Canvas()
        top = margin if inside else _title(canvas, plan, width - 2 * margin)
        stack = _drawn(plan, nodes, Stack(plan, canvas, frame, top))
        if len(stack.arcs.lanes()) <= lanes:
            break
        lanes = len(stack.arcs.lanes())
    stack.arcs.draw(canvas, frame.right)
    bottom = legend(canvas, plan, stack.arcs, margin, stack.y + 24, width - margin)
    return canvas.svg(width, bottom + 8, f"{plan.name}: the stack of layers", theme, style=not inside)


def _drawn(plan: Plan, nodes: list[Node], stack: Stack) -> Stack:
    stack.boxes[-1, "embedding"] = embedding = stack.end(plan.embedding, embedding_notes(plan))
    stack.arrow()
    if plan.residual:
        stack.end(plan.residual, ())
        stack.arrow()
    stack.nodes(nodes)
    stack.arrow()
    if plan.final_norm:
        stack.norm(plan.final_norm)
        stack.arrow()
    x, y = stack.end(plan.head, head_notes(plan))
    if not plan.head.size:
        stack.arcs.add("embedding", (embedding[0], embedding[1] + 6), (x, y), weights=True)
    return stack


def _title(canvas: Canvas, plan: Plan, room: float) -> float:
    """Name and totals; returns where the stack begins."""
    canvas.words(MARGIN, 38, fitted(plan.name, room, 20, strong=True), "title")
    y = 38.0
    line = ""
    for fact in facts(plan):
        longer = f"{line} · {fact}" if line else fact
        if line and width_of(longer, 13) > room:
            y += 20
            canvas.words(MARGIN, y, line, "lead quiet")
            longer = fact
        line = longer
    canvas.words(MARGIN, y + 20, line, "lead quiet")
    return y + 42
