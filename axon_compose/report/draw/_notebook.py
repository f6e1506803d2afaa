"""The picture for a notebook: an image of its own, whose style touches nothing beside it."""

from __future__ import annotations

from base64 import b64encode

from axon_compose.plan import Plan
from axon_compose.report.draw._markup import void
from axon_compose.report.draw._picture import picture

__all__ = ["embedded"]


def embedded(plan: Plan) -> str:
    """The stack of a model as an element `img` that holds its picture."""
    data = b64encode(picture(plan).encode()).decode()
    return void("img", alt=f"{plan.name}: the stack of layers", src=f"data:image/svg+xml;base64,{data}")
