"""Processes of a pipeline as threads of one process, which send each other arrays through queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

import mlx.core as mx

from axon_compose.model import LanguageModel, with_folder_names

__all__ = ["Parts", "Ring", "divided", "ring_of"]


@dataclass
class Ring:
    """A rank of a ring, as `Post` takes it; `sent` are the numbers of bytes of all arrays in order.

    As in a ring of sockets, only neighbours can reach each other, and what comes must be of the announced shape.
    """

    number: int
    count: int
    queues: dict[tuple[int, int], Queue[mx.array]]
    broken: threading.Event
    sent: list[int] = field(default_factory=list)

    def rank(self) -> int:
        return self.number

    def size(self) -> int:
        return self.count

    def send(self, array: mx.array, to: int) -> mx.array:
        assert (to - self.number) % self.count in (1, self.count - 1), "it is no neighbour"
        mx.eval(array)
        self.sent.append(array.nbytes)
        self.queues[self.number, to].put(array)
        return array

    def receive(self, shape: Sequence[int], dtype: mx.Dtype, source: int) -> mx.array:
        while not self.broken.is_set():
            with suppress(Empty):
                array = self.queues[source, self.number].get(timeout=0.1)
                assert (tuple(array.shape), array.dtype) == (tuple(shape), dtype)
                return array
        raise BrokenPipeError("another rank has failed")


def ring_of(size: int) -> list[Ring]:
    """As many ranks that reach each other."""
    queues: dict[tuple[int, int], Queue[mx.array]] = {(a, b): Queue() for a in range(size) for b in range(size)}
    broken = threading.Event()
    return [Ring(rank, size, queues, broken) for rank in range(size)]


def divided(model: LanguageModel, size: int, split: Sequence[int] | None = None) -> Parts:
    """The same weights in several models, each with its part of the layers."""
    mx.eval(model.parameters())
    parts = Parts([with_folder_names(model) for _ in range(size)], ring_of(size))
    for part, ring in zip(parts.models, parts.rings, strict=True):
        part.eval()
        part.model.pipeline(ring, split)
    return parts


@dataclass
class Parts:
    """Models that are divided over the ranks of a ring."""

    models: list[Any]
    rings: list[Ring]

    def run(self, work: Callable[[Any], list[mx.array]]) -> list[list[mx.array]]:
        """What each model gives, all at the same time."""
        found: list[Any] = [None] * len(self.models)

        def run(rank: int) -> None:
            try:
                found[rank] = work(self.models[rank])
                mx.eval(found[rank])
            except BaseException as error:  # the test shall see it
                found[rank] = error
                self.rings[rank].broken.set()
            finally:
                mx.clear_streams()  # else the process aborts now and then when it ends

        threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(len(self.models))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        faults = [each for each in found if isinstance(each, BaseException)]
        if faults:
            raise next((fault for fault in faults if not isinstance(fault, BrokenPipeError)), faults[0])
        return found
