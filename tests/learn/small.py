"""Small models and data for the tests of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import numpy as np

import axon_compose
from axon_compose.learn import Batch
from axon_compose.model import LanguageModel
from tests.helpers import described

VOCABULARY = 64


def model(seed: int = 0, **sections: Any) -> LanguageModel:
    """Attention, a state space and a window, with random weights."""
    return axon_compose.load(described(**sections)).build(seed=seed)


class Counting:
    """Sequences that count up by one, from a random start: soon learned.

    Args:
        batch: Sequences of a step.
        length: Tokens of each.
        left_out: How many targets at the end of each sequence do not count.
        seed: Of the starts.
    """

    def __init__(self, batch: int = 4, length: int = 12, left_out: int = 0, seed: int = 0) -> None:
        self.batch, self.length, self.left_out, self.seed = batch, length, left_out, seed

    @property
    def tokens_of_step(self) -> int:
        return self.batch * self.length

    def at(self, step: int) -> Batch:
        starts = np.random.default_rng([self.seed, step]).integers(0, VOCABULARY, (self.batch, 1))
        tokens = (starts + np.arange(self.length + 1)) % VOCABULARY
        targets = tokens[:, 1:].copy()
        if self.left_out:
            targets[:, -self.left_out :] = -100
        return Batch(mx.array(tokens[:, :-1].astype(np.int32)), mx.array(targets.astype(np.int32)))

    def held_out(self) -> Iterable[Batch]:
        return [self.at(1_000_000), self.at(1_000_001)]
