"""Bytes and messages of collectives, counted by devices that do them with lists of numbers."""

from __future__ import annotations

import random

import pytest

from axon_compose.analysis.devices import Traffic, all_gather, all_reduce, all_to_all, reduce_scatter, send

Devices = list[list[list[int]]]  # device, part, numbers


def drawn(devices: int, width: int) -> Devices:
    numbers = random.Random(devices)
    return [[[numbers.randrange(99) for _ in range(width)] for _ in range(devices)] for _ in range(devices)]


def around(held: Devices, first: int, *, add: bool) -> tuple[int, int]:
    """n - 1 steps in which each device sends one part to its neighbour; numbers that one sends, and steps."""
    n, sent = len(held), 0
    for step in range(n - 1):
        messages = [(rank, (rank + first - step) % n) for rank in range(n)]
        moving = [list(held[rank][part]) for rank, part in messages]
        for (rank, part), numbers in zip(messages, moving, strict=True):
            target = held[(rank + 1) % n]
            target[part] = [a + b for a, b in zip(target[part], numbers, strict=True)] if add else numbers
        sent += len(moving[0])
    return sent, n - 1


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_a_sum_over_a_ring(devices: int) -> None:
    width = 5
    held = drawn(devices, width)
    sums = [[sum(column) for column in zip(*(held[r][part] for r in range(devices)), strict=True)]
            for part in range(devices)]  # fmt: skip
    scattered = around(held, 0, add=True)
    assert all(held[rank][(rank + 1) % devices] == sums[(rank + 1) % devices] for rank in range(devices))
    gathered = around(held, 1, add=False)
    assert all(held[rank] == sums for rank in range(devices))
    nbytes = 4 * devices * width
    for found, (sent, steps) in ((reduce_scatter(nbytes, devices), scattered), (all_gather(nbytes, devices), gathered)):
        assert found == Traffic(pytest.approx(4 * sent), steps)
    whole = all_reduce(nbytes, devices)
    assert whole.nbytes == pytest.approx(2 * (devices - 1) / devices * nbytes)
    assert whole.messages == 2 * (devices - 1)


@pytest.mark.parametrize("devices", [1, 2, 5])
def test_tokens_to_their_experts(devices: int) -> None:
    """Each device has tokens for every other one, and keeps its own."""
    held = drawn(devices, 3)
    received = [[held[source][rank] for source in range(devices)] for rank in range(devices)]
    sent = sum(len(part) for rank, part in enumerate(held[0]) if rank)
    assert [row[rank] for rank, row in enumerate(received)] == [held[rank][rank] for rank in range(devices)]
    assert all_to_all(4 * 3 * devices, devices) == Traffic(pytest.approx(4 * sent), devices - 1)


def test_time() -> None:
    assert send(1000).seconds(link=1e6, latency=0.5) == 0.5 + 1e-3
    assert (send(10) + send(20).times(2)) == Traffic(50.0, 3)
