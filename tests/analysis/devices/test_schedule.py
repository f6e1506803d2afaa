"""Schedules against closed forms of the literature, and against a simulation that goes from event to event."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

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
        times = {"F": 1, "B": backward}
        found = run(training(schedule, stages, micro), lambda job, t=times: t[job.kind], lambda _: NOTHING)
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
    assert {late - early for early, late in pairwise(ends[3:])} == {max(stages, groups)}


def test_orders_that_wait_for_each_other_are_refused() -> None:
    orders = training("1f1b", 2, 2)
    with pytest.raises(ValueError, match="wait for each other"):
        run([orders[0], orders[1][::-1]], lambda _: 1.0, lambda _: NOTHING)


class Brute:
    """A clock, a heap of events, a queue for each link, and a mailbox for each stage."""

    def __init__(
        self,
        orders: Sequence[Sequence[Job]],
        seconds: Callable[[Job], float],
        handing: Callable[[Job], Handing],
    ) -> None:
        self.seconds, self.handing, self.stages = seconds, handing, len(orders)
        self.left = [list(order) for order in orders]
        self.busy = [False] * self.stages
        self.mail: list[set[Job]] = [set() for _ in orders]
        self.lines: dict[tuple[int, int], list[Job]] = {}
        self.ends: dict[Job, float] = {}
        self.events: list[tuple[float, int, str, Job]] = []
        self.count = self.now = 0.0

    def run(self) -> dict[Job, float]:
        """The end of every job."""
        for stage in range(self.stages):
            self.look(stage)
        while self.events:
            self.now, _, what, job = heapq.heappop(self.events)
            getattr(self, what)(job)
        return self.ends

    def later(self, delay: float, what: str, job: Job) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, int(self.count), what, job))

    def look(self, stage: int) -> None:
        """Begin the next job if the stage is idle and has what it needs."""
        if self.busy[stage] or not self.left[stage]:
            return
        job = self.left[stage][0]
        if wanted(job, self.stages) in (None, *self.mail[stage]):
            self.busy[stage] = True
            self.later(self.seconds(self.left[stage].pop(0)), "done", job)

    def done(self, job: Job) -> None:
        self.busy[job.stage], self.ends[job] = False, self.now
        target = receiver(job, self.stages)
        if target is not None:
            line = self.lines.setdefault((job.stage, target), [])
            line.append(job)
            if len(line) == 1:
                self.later(self.handing(job).sending, "sent", job)
        self.look(job.stage)

    def sent(self, job: Job) -> None:
        self.later(self.handing(job).latency, "arrived", job)
        line = self.lines[job.stage, receiver(job, self.stages) or 0]
        line.remove(job)
        if line:
            self.later(self.handing(line[0]).sending, "sent", line[0])

    def arrived(self, job: Job) -> None:
        target = receiver(job, self.stages) or 0
        self.mail[target].add(job)
        self.look(target)


def receiver(job: Job, stages: int) -> int | None:
    """The other stage that gets the result."""
    target = {"F": job.stage + 1, "B": job.stage - 1, "D": (job.stage + 1) % stages}[job.kind]
    return target if 0 <= target < stages and stages > 1 else None


def wanted(job: Job, stages: int) -> Job | None:
    """What has to arrive from another stage before a job begins."""
    if job.kind == "F":
        return None if job.stage == 0 else Job("F", job.stage - 1, job.micro)
    if job.kind == "B":
        return None if job.stage == stages - 1 else Job("B", job.stage + 1, job.micro)
    if job.stage:
        return Job("D", job.stage - 1, job.micro, job.turn)
    return Job("D", stages - 1, job.micro, job.turn - 1) if job.turn and stages > 1 else None


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
        assert found == Brute(orders, seconds, handing).run()
