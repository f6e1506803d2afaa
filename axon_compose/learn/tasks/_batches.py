"""A task as batches for training: each step its own, evaluation from a split that no step sees."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from axon_compose.learn.batches import Batch
from axon_compose.learn.tasks._draw import Drawn
from axon_compose.learn.tasks._task import Task

__all__ = ["TaskBatches"]


class TaskBatches:
    """A skill task as `Batches`.

    Args:
        task: What is asked.
        batch: Sequences of a step.
        seed: Of all sequences, those of evaluation excepted: they are the same for all seeds.
        held_out: Batches of an evaluation.
    """

    def __init__(self, task: Task, *, batch: int, seed: int = 0, held_out: int = 8) -> None:
        self.task, self.batch, self.seed, self._held_out = task, batch, seed, held_out

    @property
    def digest(self) -> str:
        """What a run is continued with."""
        return str(self.task)

    @property
    def tokens_of_step(self) -> int:
        """B times L of every step."""
        return self.batch * self.task.length

    def at(self, step: int) -> Batch:
        """The batch of a step, from 0."""
        return _batch(self.task.draw(self.batch, seed=self.seed, step=step))

    def held_out(self) -> Iterator[Batch]:
        """Batches that no step learns from, the same each time."""
        for number in range(self._held_out):
            yield _batch(self.task.draw(self.batch, seed=0, step=number, held_out=True))


def _batch(drawn: Drawn) -> Batch:
    tokens, targets = drawn
    return Batch(mx.array(tokens), mx.array(targets))
