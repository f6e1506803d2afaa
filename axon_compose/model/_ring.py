"""A pipeline in one process, to try it without starting others: threads that send each other arrays through queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any, TypeVar

import mlx.core as mx

from axon_compose.model._folder_model import with_folder_names
from axon_compose.model._language_model import LanguageModel
from axon_compose.model._threads import run_threads

__all__ = ["Parts", "Ring", "divided", "ring_of"]

_T = TypeVar("_T")


@dataclass
class Ring:
    """A rank of a ring of threads, as `Post` takes it.

    As in a ring of sockets, only neighbours reach each other, and what comes must have the shape that was announced.

    Attributes:
        number: The rank.
        count: How many there are.
        queues: Two ranks to what is on its way from one to the other.
        broken: Set when one of them has failed, so that the others do not wait.
        sent: Bytes of all arrays that it has sent, in order; of sums what a ring of processes would send.
    """

    number: int
    count: int
    queues: dict[tuple[int, int], Queue[mx.array]]
    broken: threading.Event
    sent: list[float] = field(default_factory=list)

    def rank(self) -> int:
        """The rank."""
        return self.number

    def size(self) -> int:
        """How many there are."""
        return self.count

    def send(self, array: mx.array, to: int) -> mx.array:
        """Send an array to a neighbour."""
        if (to - self.number) % self.count not in (1, self.count - 1):
            raise ValueError(f"rank {to} is no neighbour of rank {self.number}")
        mx.eval(array)
        self.sent.append(array.nbytes)
        self.queues[self.number, to].put(array)
        return array

    def sum(self, array: mx.array) -> mx.array:
        """The sum of the arrays of all ranks, each of which goes once round."""
        mx.eval(array)
        total = passed = array
        for _ in range(self.count - 1):
            self.queues[self.number, (self.number + 1) % self.count].put(passed)
            passed = self.receive(array.shape, array.dtype, (self.number - 1) % self.count)
            total = total + passed
        self.sent.append(2 * (self.count - 1) / self.count * array.nbytes)
        return total

    def receive(self, shape: Sequence[int], dtype: mx.Dtype, source: int) -> mx.array:
        """Wait for an array from a neighbour."""
        while not self.broken.is_set():
            with suppress(Empty):
                array = self.queues[source, self.number].get(timeout=0.1)
                if (tuple(array.shape), array.dtype) != (tuple(shape), dtype):
                    raise ValueError(f"{array.dtype} {array.shape} came, announced as {dtype} {tuple(shape)}")
                return array
        raise BrokenPipeError("another rank has failed")


def ring_of(size: int) -> list[Ring]:
    """As many ranks that reach each other."""
    queues: dict[tuple[int, int], Queue[mx.array]] = {(a, b): Queue() for a in range(size) for b in range(size)}
    broken = threading.Event()
    return [Ring(rank, size, queues, broken) for rank in range(size)]


def divided(model: LanguageModel, size: int, split: Sequence[int] | None = None) -> Parts:
    """The same weights in several models, each with its part of the layers.

    Args:
        model: The whole model; it stays as it is.
        size: Number of ranks.
        split: Layers of each rank; balanced unless given.

    Raises:
        Refusal: `AX990`, the layers cannot be divided so.
    """
    mx.eval(model.parameters())
    parts = Parts([with_folder_names(model) for _ in range(size)], ring_of(size))
    for part, ring in zip(parts.models, parts.rings, strict=True):
        part.eval()
        part.model.pipeline(ring, split)
    return parts


@dataclass
class Parts:
    """Models that are divided over the ranks of a ring.

    Attributes:
        models: One for each rank.
        rings: The ranks.
    """

    models: list[Any]
    rings: list[Ring]

    def run(self, work: Callable[[Any], _T]) -> list[_T]:
        """What each model gives, all at the same time.

        Args:
            work: Calls a model; arrays that it uses from outside must be computed already.

        Returns:
            By rank.

        Raises:
            Exception: What the first rank raised that failed by itself.
        """

        def run(rank: int) -> _T:
            found = work(self.models[rank])
            mx.eval(found)
            return found

        return run_threads(len(self.models), run, self.rings[0].broken.set, BrokenPipeError)
