"""What a task draws batches with, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORED", "Draw", "Drawn", "distinct", "unscored"]

#: The target of a position that is not scored.
IGNORED: Final = -100

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
    return np.full(tokens.shape, IGNORED, tokens.dtype)
