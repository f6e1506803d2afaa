"""What a task draws batches with, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from axon_compose.learn.batches import LEFT_OUT

__all__ = ["Draw", "Drawn", "distinct", "unscored"]

Integers = NDArray[np.integer]
#: Tokens and targets, both (batch, L).
Drawn = tuple[Integers, Integers]


@dataclass(frozen=True)
class Draw:
    """What a batch is drawn with.

    Attributes:
        rng: Its random numbers, a function of seed, step and split.
        batch: How many sequences.
        held_out: Whether they are for evaluation.
    """

    rng: np.random.Generator
    batch: int
    held_out: bool = False


def distinct(rng: np.random.Generator, shape: tuple[int, int], below: int) -> Integers:
    """(rows, n) of integers below a bound, none twice in a row of it."""
    return np.argsort(rng.random((shape[0], below)), axis=1)[:, : shape[1]]


def unscored(tokens: Integers) -> Integers:
    """Targets of the same shape, none of them scored."""
    return np.full(tokens.shape, LEFT_OUT, tokens.dtype)
