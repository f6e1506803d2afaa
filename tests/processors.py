"""A processor for each worker.

MLX computes on a thread of its own, which waits for every operation that Python hands over. With as many workers as
processors, the two threads only get into each other's way: 25,000 times a second one wakes the other on another
processor, and stops what ran there. On one processor they share its cache, and as a batch job (`man 7 sched`) the woken
thread waits until the other has handed over all it has: a fifth to a third less processor time where tests compute.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["settle", "shared"]

#: What this process might use before it settled; nothing while it has not.
_at_first: set[int] = set()


def settle(worker: int, workers: int) -> None:
    """Keep this process, and what it starts, on the processor of the worker.

    Args:
        worker: Its number, from zero.
        workers: How many there are; if they are fewer than processors, they are better off with several each.
    """
    if sys.platform != "linux":
        return
    processors = sorted(os.sched_getaffinity(0))
    if workers < len(processors):
        return
    _at_first.update(processors)
    # Kernels of axon-native share their work among as many threads as without this.
    os.environ.setdefault("AXON_THREADS", str(len(processors)))
    for task in list(Path("/proc/self/task").iterdir()):  # imports may have started some
        _be(int(task.name), {processors[worker % len(processors)]}, os.SCHED_BATCH)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Processes that are started inside use every processor: those that wait for each other do so in busy loops."""
    if not _at_first:
        yield
        return
    settled = os.sched_getaffinity(0), os.sched_getscheduler(0)
    _be(0, _at_first, os.SCHED_OTHER)
    try:
        yield
    finally:
        _be(0, *settled)


def _be(thread: int, processors: set[int], policy: int) -> None:
    with contextlib.suppress(OSError):  # a container may forbid either
        os.sched_setaffinity(thread, processors)
        os.sched_setscheduler(thread, policy, os.sched_param(0))
