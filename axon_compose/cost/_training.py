"""What a backward pass needs of the forward pass: an estimate from the shapes of the matrices."""

from __future__ import annotations

from math import prod

from axon_compose.cost._answers import Answers
from axon_compose.plan import DTYPES, Plan, Use

__all__ = ["saved_bytes"]


def saved_bytes(plan: Plan, use: Use, answers: Answers, dtype: str) -> int:
    """Bytes that one token leaves for the backward pass in one component, about.

    The component's input and output, and input and output of each of its matrices, of experts those that a token is
    sent to. Scores of attention and states of scans are made anew in the backward pass. The head's logits are kept once
    more in float32, for the loss.
    """
    touched = answers.touched(use, 1)
    numbers = 2 * int(plan.dims.hidden_size)
    for name, shape in use.params.items():
        if len(shape) < 2 or not name.endswith(".weight"):
            continue
        rows = touched.get(name)
        if len(shape) == 2 and rows is not None:
            numbers += shape[-1]  # a table: the vector that is looked up
        else:
            stacked = prod(shape[:-2])
            numbers += (stacked if rows is None else min(rows, stacked)) * (shape[-1] + shape[-2])
    saved = numbers * DTYPES[dtype]
    if use is plan.head:
        vocabulary = int(plan.dims.vocab_size)
        tied = any(name.startswith("embedding.") for name in touched)
        saved += vocabulary * (4 + (DTYPES[dtype] if tied else 0))
    return saved
