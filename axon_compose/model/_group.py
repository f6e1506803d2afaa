"""What several devices do together: sums and arrays side by side, of a group of MLX or of threads of this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import mlx.core as mx

from axon_compose.model._threads import run_threads
from axon_compose.model._turns import in_turn
from axon_compose.registry import Shard

__all__ = ["counting", "in_threads", "joining"]

_T = TypeVar("_T")

#: Counters of those who look at what is exchanged.
_COUNTERS: Final[list[Counter[str]]] = []


def joining(group: Any) -> Shard:
    """The device of this process in a group of `mx.distributed`.

    Its functions are lazy as all of MLX: every device must compute the same arrays in the same order.
    """
    size = group.size()

    def added(array: mx.array) -> mx.array:
        _count("sum", array)
        in_turn()
        return mx.distributed.all_sum(array, group=group)

    def gathered(array: mx.array) -> mx.array:
        _count("gather", array)
        in_turn()
        parts = mx.distributed.all_gather(array[None], group=group)
        return mx.moveaxis(parts, 0, -2).reshape(*array.shape[:-1], size * array.shape[-1])

    return Shard(group.rank(), size, added, gathered)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count what this process hands to the other devices: bytes of arrays that are summed or gathered.

    Yields:
        `sum` and `gather` to bytes, and `sums` and `gathers` to calls.
    """
    found: Counter[str] = Counter()
    _COUNTERS.append(found)
    try:
        yield found
    finally:
        _COUNTERS.remove(found)


def _count(what: str, array: mx.array) -> None:
    for counter in _COUNTERS:
        counter[what] += array.nbytes
        counter[f"{what}s"] += 1


def in_threads(size: int, work: Callable[[Shard], _T]) -> list[_T]:
    """Run several devices in this process, to try a split without starting others.

    Only one of them computes at a time: each until it needs what the others have.

    Args:
        size: Number of devices.
        work: What a device does.

    Returns:
        What each of them gave, in order.

    Raises:
        Exception: What the first device raised that failed by itself; the others are ended.
    """
    threads = _Threads(size)

    def run(rank: int) -> _T:
        with threads.turn:
            try:
                return work(threads.device(rank))
            finally:
                threads.ends(rank)

    try:
        return run_threads(size, run, threads.stop, _LeftError)
    except _LeftError as error:
        raise RuntimeError("the devices did not ask for the same sums") from error


class _LeftError(Exception):
    """A device waits for another one that has ended."""


class _Threads:
    """Arrays that threads give each other, and whose turn it is."""

    def __init__(self, size: int) -> None:
        self.turn = threading.Condition()
        self.stopped = False
        #: How many arrays each device has given. Those of two rounds are kept: who has given the next one has taken all
        #: of this one, and nobody gives one more before.
        self.given = [0] * size
        self.arrays: list[list[Any]] = [[None] * size, [None] * size]
        self.ended: set[int] = set()

    def device(self, rank: int) -> Shard:
        def added(array: mx.array) -> mx.array:
            first, *others = self.exchanged(rank, array)
            for other in others:
                first = first + other
            return first

        def gathered(array: mx.array) -> mx.array:
            return mx.concatenate(self.exchanged(rank, array), axis=-1)

        return Shard(rank, len(self.given), added, gathered)

    def exchanged(self, rank: int, array: mx.array) -> list[mx.array]:
        mx.eval(array)
        self.given[rank] = number = self.given[rank] + 1
        round_ = self.arrays[number % 2]
        round_[rank] = array
        self.turn.notify_all()
        self.turn.wait_for(lambda: min(self.given) >= number or self.left(number))
        if self.stopped or self.left(number):
            raise _LeftError("another device has ended")
        return list(round_)

    def left(self, number: int) -> bool:
        """Whether a device has ended that has given fewer arrays."""
        return any(self.given[rank] < number for rank in self.ended)

    def ends(self, rank: int) -> None:
        self.ended.add(rank)
        self.turn.notify_all()

    def stop(self) -> None:
        """Let each device end at its next exchange."""
        self.stopped = True
