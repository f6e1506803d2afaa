"""How the ranks of a run hold what is trained: each all of it, or each a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from axon_compose.learn.ranks import Ranks

__all__ = ["Copied"]


class Copied:
    """Every rank has all weights and all of the optimiser's state, the same to the bit.

    Args:
        model: What is trained.
        ranks: The processes.
    """

    #: Whether ranks have parts of some weights, and whether those are rows of all matrices that Muon moves.
    shards = by_rows = False

    def __init__(self, model: Any, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks

    def taken(self, weights: Any) -> Any:
        """What a pass of training takes as weights, of what moves."""
        return weights

    def mean(self, gradients: Any, figures: list[mx.array]) -> tuple[Any, list[mx.array]]:
        """Gradients of what moves and figures, the means of those of all ranks."""
        gradients, figures = self.ranks.mean([gradients, figures])
        return gradients, figures

    def clip(self, gradients: Any, most: float) -> tuple[Any, mx.array]:
        """Gradients with a norm over all weights of at most this, and the norm that they had."""
        clipped: tuple[Any, mx.array] = optim.clip_grad_norm(gradients, most)
        return clipped

    @contextmanager
    def running(self) -> Iterator[None]:
        """Where the model can be called."""
        yield

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Where the model of rank 0 has all weights; all ranks enter it together."""
        yield

    def shape_of(self, name: str, array: mx.array) -> tuple[int, ...]:
        """The shape of an array of the state of a run, that rank 0 writes."""
        return tuple(array.shape)

    def sent(self, name: str, array: mx.array) -> mx.array:
        """An array of the state of a run, whole."""
        return array

    def received(self, name: str, own: mx.array, found: mx.array | None) -> mx.array:
        """What this rank holds of an array of the state of a run.

        Args:
            name: Of the array.
            own: What it holds now.
            found: On rank 0, the whole array.
        """
        received: mx.array = self.ranks.shared(own if found is None else found)
        return received
