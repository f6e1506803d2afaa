"""Devices as threads of this process, to try a model on several of them without starting other processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import mlx.core as mx

__all__ = ["run_threads"]

_T = TypeVar("_T")


def run_threads(size: int, work: Callable[[int], _T], stop: Callable[[], None], stopped: type[Exception]) -> list[_T]:
    """Run a function in several threads at the same time.

    Args:
        size: Number of threads.
        work: What a thread does; called with its number, from 0.
        stop: Lets threads end that wait for others. Called when one has failed, and after a Ctrl-C, which comes to the
            calling thread alone.
        stopped: What threads raise that end because of another.

    Returns:
        What each of them gave, in order.

    Raises:
        Exception: What the first thread raised that failed by itself, or `stopped` if none did.
    """
    found: list[Any] = [None] * size
    faults: list[BaseException] = []

    def run(number: int) -> None:
        try:
            found[number] = work(number)
        except BaseException as error:
            faults.append(error)
            stop()
        finally:
            mx.clear_streams()  # those of this thread, without which MLX may end the process at its exit

    threads = [threading.Thread(target=run, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        stop()
        raise
    if faults:
        raise next((fault for fault in faults if not isinstance(fault, stopped)), faults[0])
    return found
