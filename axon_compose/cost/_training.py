"""What a backward pass needs of the forward pass: an estimate from the shapes of the matrices."""

from __future__ import annotations

from math import prod

from axon_compose.cost._answers import Answers
from axon_compose.plan import DTYPES, Plan, Use

__all__ = ["saved_bytes"]


def saved_bytes(plan: Plan, use: Use, answers: Answers, dtype: str) -> int:
    """Bytes that one token leaves for the backward pass in one component, about.

    The component's input and output; of each of its matrices the input, and the output before and after what is done
    with it (an activation, a norm, a rotation), of experts for those that a token is sent to; the products of a
    convolution in float32. Scores of attention and states of scans are made anew in the backward pass. The head's
    logits are kept once more in float32, for the loss.
    """
    touched = answers.touched(use, 1)
    width = DTYPES[dtype]
    saved = 2 * int(plan.dims.hidden_size) * width
    for name, shape in use.params.items():
        if len(shape) < 2 or not name.endswith(".weight"):
            continue
        rows, stacked = touched.get(name), prod(shape[:-2])
        if shape[-1] == 1 and len(shape) == 3:
            saved += 4 * prod(shape)
        elif len(shape) == 2 and rows is not None:
            saved += shape[-1] * width  # a table: the vector that is looked up
        else:
            saved += (stacked if rows is None else min(rows, stacked)) * (shape[-1] + 2 * shape[-2]) * width
    if use is plan.head:
        vocabulary = int(plan.dims.vocab_size)
        tied = any(name.startswith("embedding.") for name in touched)
        saved += vocabulary * (4 + (width if tied else 0))
    return saved
