"""Schedules against closed forms of the literature, and against a simulation that goes from event to event."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from axon_compose.analysis.devices._schedule import (
    SCHEDULES,
    Handing,
    Job,
    Schedule,
    decoding,
    run,
    training,
)

NOTHING = Handing()
SIZES = [(1, 1), (1, 5), (2, 1), (2, 4), (4, 2), (4, 4), (4, 16), (7, 9), (8, 32)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("stages", "micro"), SIZES)
def test_the_bubble_is_that_of_the_literature(schedule: Schedule, stages: int, micro: int) -> None:
    """(p - 1) / (m + p - 1), for equal stages, whatever the ratio of forward and backward pass."""
    for backward in (1, 2, 3):
        found = run(training(schedule, stages, micro), lambda job, b=backward: 1 if job.kind == "F" else b, lambda _: NOTHING)
        assert found.bubble == pytest.approx(Fraction(stages - 1, micro + stages - 1))
        assert found.seconds == (micro + stages - 1) * (1 + backward)


@pytest.mark.parametrize(("stages", "micro"), SIZES)
def test_what_is_kept(stages: int, micro: int) -> None:
    """GPipe keeps all micro-batches; 1F1B as many as there are stages from this one to the last."""
    for schedule, kept in (
        ("gpipe", [micro] * stages),
        ("1f1b", [min(stages - stage, micro) for stage in range(stages)]),
    ):
        found = run(training(schedule, stages, micro), lambda _: 1.0, lambda _: NOTHING)
        assert [found.kept(stage) for stage in range(stages)] == kept


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_forward_passes_of_unequal_stages(schedule: Schedule) -> None:
    """A flow shop of equal jobs ends after one of each and m - 1 more of the longest."""
    times = [3, 1, 4, 1, 5]
    found = run(training("gpipe", 5, 9), lambda job: times[job.stage] if job.kind == "F" else 0, lambda _: NOTHING)
    assert found.seconds == sum(times) + 8 * max(times)


@pytest.mark.parametrize(("stages", "groups"), [(1, 1), (4, 1), (4, 2), (4, 4), (4, 7), (3, 8)])
def test_decoding_is_full_with_as_many_groups_as_stages(stages: int, groups: int) -> None:
    """A turn takes the longer of a way round and the work of a stage for all groups."""
    turns = 12
    found = run(decoding(stages, groups, turns), lambda _: 1.0, lambda _: NOTHING)
    ends = [done.end for done in found.of(stages - 1) if done.job.micro == groups - 1]
    assert {late - early for early, late in zip(ends[3:], ends[4:], strict=False)} == {max(stages, groups)}


def test_orders_that_wait_for_each_other_are_refused() -> None:
    orders = training("1f1b", 2, 2)
    with pytest.raises(ValueError, match="wait for each other"):
        run([orders[0], orders[1][::-1]], lambda _: 1.0, lambda _: NOTHING)


def brute(
    orders: Sequence[Sequence[Job]], seconds: Callable[[Job], float], handing: Callable[[Job], Handing]
) -> dict[Job, float]:
    """The end of every job, from event to event: a clock, a heap, and mailboxes that messages arrive in."""
    stages = len(orders)
    events: list[tuple[float, int, str, int, Job | None]] = [(0.0, s, "look", s, None) for s in range(stages)]
    heapq.heapify(events)
    mail: list[set[Job]] = [set() for _ in range(stages)]
    queue: dict[tuple[int, int], list[Job]] = {}
    at, busy, ends, count = [0] * stages, [False] * stages, {}, stages

    def push(time: float, what: str, stage: int, job: Job | None) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (time, count, what, stage, job))

    def receivers(job: Job) -> int | None:
        ways = {"F": job.stage + 1, "B": job.stage - 1, "D": (job.stage + 1) % stages}
        to = ways[job.kind]
        return to if 0 <= to < stages and stages > 1 else None

    def wanted(job: Job) -> Job | None:
        if job.kind == "F":
            return None if job.stage == 0 else Job("F", job.stage - 1, job.micro)
        if job.kind == "B":
            return None if job.stage == stages - 1 else Job("B", job.stage + 1, job.micro)
        if job.stage:
            return Job("D", job.stage - 1, job.micro, job.turn)
        return Job("D", stages - 1, job.micro, job.turn - 1) if job.turn and stages > 1 else None

    while events:
        now, _, what, stage, job = heapq.heappop(events)
        if what == "done":
            assert job is not None
            busy[stage], ends[job] = False, now
            to = receivers(job)
            if to is not None:
                line = queue.setdefault((stage, to), [])
                line.append(job)
                if len(line) == 1:
                    push(now + handing(job).sending, "sent", stage, job)
        elif what == "sent":
            assert job is not None
            to = receivers(job)
            assert to is not None
            push(now + handing(job).latency, "arrived", to, job)
            line = queue[stage, to]
            line.pop(0)
            if line:
                push(now + handing(line[0]).sending, "sent", stage, line[0])
        elif what == "arrived":
            assert job is not None
            mail[stage].add(job)
        if not busy[stage] and at[stage] < len(orders[stage]):
            following = orders[stage][at[stage]]
            need = wanted(following)
            if need is None or need in mail[stage]:
                at[stage] += 1
                busy[stage] = True
                push(now + seconds(following), "done", stage, following)
    return ends


@pytest.mark.parametrize("seed", range(12))
def test_the_same_as_from_event_to_event(seed: int) -> None:
    drawn = random.Random(seed)
    stages, micro = drawn.randint(1, 6), drawn.randint(1, 9)
    times: dict[Job, float] = {}
    ways: dict[Job, Handing] = {}

    def seconds(job: Job) -> float:
        return times.setdefault(job, drawn.choice([0.5, 1.0, 2.0, 3.5]))

    def handing(job: Job) -> Handing:
        return ways.setdefault(job, Handing(drawn.choice([0.0, 0.25, 3.0]), drawn.choice([0.0, 0.125, 1.0])))

    for orders in (
        *(training(schedule, stages, micro) for schedule in SCHEDULES),
        decoding(stages, micro, drawn.randint(1, 5)),
    ):
        found = {done.job: done.end for done in run(orders, seconds, handing).runs}
        assert found == brute(orders, seconds, handing)
