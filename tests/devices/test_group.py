"""Sums and gathers of threads, and what is counted of those that go to other processes."""

from __future__ import annotations

import threading

import mlx.core as mx
import pytest

from axon_compose.model import counting, in_threads, joining
from axon_compose.registry import Shard


def test_every_thread_gets_what_all_gave() -> None:
    def run(device: Shard) -> list[mx.array]:
        own = mx.arange(6.0).reshape(1, 2, 3) + 10 * device.rank
        found = [device.sum(own), device.gather(own), device.sum(device.sum(own))]
        mx.eval(found)
        return found

    parts = [mx.arange(6.0).reshape(1, 2, 3) + 10 * rank for rank in range(3)]
    added = parts[0] + parts[1] + parts[2]
    for one in in_threads(3, run):
        for found, wanted in zip(one, (added, mx.concatenate(parts, axis=-1), 3 * added), strict=True):
            assert mx.array_equal(found, wanted).item()


def test_the_first_fault_is_told() -> None:
    def run(device: Shard) -> mx.array:
        if device.rank == 1:
            raise KeyError("device 1")
        return device.sum(mx.ones(3))

    with pytest.raises(KeyError, match="device 1"):
        in_threads(3, run)


@pytest.mark.parametrize("calls", [(1, 0), (2, 1), (0, 3)])
def test_devices_that_ask_for_other_sums_are_not_waited_for(calls: tuple[int, int]) -> None:
    def run(device: Shard) -> None:
        for _ in range(calls[device.rank]):
            device.sum(mx.ones(2))

    with pytest.raises(RuntimeError, match="did not ask for the same sums"):
        in_threads(2, run)


def test_devices_end_at_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to the thread that waits for them; they see it at the next sum."""
    known, interrupted, reached = set(threading.enumerate()), threading.Event(), list[int]()

    def run(device: Shard) -> None:
        interrupted.wait()
        device.sum(mx.ones(2))
        reached.append(device.rank)

    def interrupt(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            in_threads(2, run)
    interrupted.set()
    for thread in set(threading.enumerate()) - known:
        thread.join()
    assert reached == []


def test_bytes_that_are_exchanged_are_counted() -> None:
    alone = joining(mx.distributed.init())
    numbers = mx.arange(6, dtype=mx.float32).reshape(2, 3)
    with counting() as found:
        assert mx.array_equal(alone.sum(numbers), numbers).item()
        assert mx.array_equal(alone.gather(numbers.astype(mx.float16)), numbers).item()
    alone.sum(numbers)
    assert found == {"sum": 24, "sums": 1, "gather": 12, "gathers": 1}
