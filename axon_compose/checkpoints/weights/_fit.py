"""Whether tensors, and what a rule makes of them, have the shapes of the model."""

from __future__ import annotations

from collections.abc import Sequence

from axon_compose.checkpoints.files._safetensors import shown
from axon_compose.checkpoints.weights._rules import Found
from axon_compose.checkpoints.weights._steps import Transpose
from axon_compose.checkpoints.weights._storage import Form, Source
from axon_compose.checkpoints.weights._transfer import Transfer

__all__ = ["difference", "moves", "odd_member", "shape_text", "together"]


def difference(transfer: Transfer, form: Form) -> str | None:
    """How the shapes that come out differ from those of the model."""
    for output, shape in zip(transfer.outputs, transfer.shapes(), strict=True):
        if output is not None and shape != output.shape:
            made = f"produces {list(shape)} from {list(form.shape)}" if shape != form.shape else f"gives {list(shape)}"
            name = f" for {output.parameter}" if len(transfer.outputs) > 1 else ""
            return f"it {made}{name}, the model has {list(output.shape)}"
    return None


def together(found: Found, sources: Sequence[Source]) -> list[Form]:
    """What the tensors may be: each of those that are alike, or all together where they are joined."""
    forms, axis = sources[0].forms(), found.rule.written.axis
    written = found.rule.written
    if not (written.join or written.parts) or any(
        axis >= len(form.shape) for source in sources for form in source.forms()
    ):
        return forms
    whole = [sum(source.forms()[0].shape[axis] for source in sources)]
    return [Form((*form.shape[:axis], *whole, *form.shape[axis + 1 :]), form.packing) for form in forms]


def odd_member(transfer: Transfer) -> str | None:
    """Which of the tensors that are joined has another shape than the rule says."""
    if transfer.joined is None:
        return None
    if len(transfer.joined.parts) != len(transfer.sources):
        return f"it joins {len(transfer.sources)} tensors, which are not of equal lengths but the last"
    for source, form in zip(transfer.sources, transfer.forms(), strict=True):
        if form not in source.forms():
            return f"it joins {shown(source.name)} as {list(form.shape)}, which is {shape_text(source)}"
    return None


def moves(transfer: Transfer) -> bool:
    """Whether the steps move any element."""
    shape = (len(transfer.sources), *transfer.form.shape) if transfer.stacked else transfer.form.shape
    for step in transfer.steps:
        if isinstance(step, Transpose) and step.moves(shape):
            return True
        shape = step.shape(shape)
    shapes = transfer.split.shapes(shape) if transfer.split else [shape]
    return any(
        isinstance(step, Transpose) and step.moves(piece)
        for output, piece in zip(transfer.outputs, shapes, strict=True)
        for step in (output.steps if output else ())
    )


def shape_text(source: Source) -> str:
    """The shape of a tensor for a message."""
    return " or ".join(str(list(form.shape)) for form in source.forms())
