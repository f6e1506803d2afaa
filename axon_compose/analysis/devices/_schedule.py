"""Schedules of a pipeline: which stage does what in which order, and when each thing is done.

A stage does one thing at a time, in a fixed order, and begins when the stage before (or, backwards, behind) has handed
over what it needs. Handing over takes no time of a stage: the link between two stages sends one array after another in
each direction, while the stages compute.

*GPipe* (Huang et al. 2019) does all forward passes of a step, then all backward passes, and keeps what all of them
left. *1F1B* (Narayanan et al. 2019, PipeDream; 2021, PipeDream-Flush) takes turns as soon as it can: a stage that is k
before the last one keeps what k + 1 micro-batches left at most. Equal stages idle (p - 1) / (m + p - 1) of the time in
both, with p stages and m micro-batches. *Decoding* goes round: the next token of a sequence begins when the last stage
has made one.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = ["SCHEDULES", "Handing", "Job", "Run", "Schedule", "Timeline", "decoding", "run", "training"]

Schedule = Literal["1f1b", "gpipe"]
SCHEDULES: Final[tuple[Schedule, ...]] = ("1f1b", "gpipe")


class Job(NamedTuple):
    """Something that a stage does: `F` a forward pass, `B` a backward pass, `D` a decoding step.

    Attributes:
        kind: Which of them.
        stage: Of the pipeline, from 0.
        micro: The micro-batch, or the group of sequences.
        turn: The decoding step, 0 in training.
    """

    kind: str
    stage: int
    micro: int
    turn: int = 0


class Run(NamedTuple):
    """When a job was done, in seconds from the beginning."""

    job: Job
    start: float
    end: float


class Handing(NamedTuple):
    """How long an array takes to the next stage: the link is busy while it is sent, and then it is on the way."""

    sending: float = 0.0
    latency: float = 0.0


@dataclass(frozen=True)
class Timeline:
    """What was done when.

    Attributes:
        stages: Of the pipeline.
        runs: In the order in which they began, stage by stage.
    """

    stages: int
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        """From the first job to the last."""
        return max(run.end for run in self.runs)

    @property
    def bubble(self) -> float:
        """Part of the time in which stages idle."""
        busy = sum(run.end - run.start for run in self.runs)
        return 1 - busy / (self.stages * self.seconds)

    def of(self, stage: int) -> list[Run]:
        """What one stage did."""
        return [run for run in self.runs if run.job.stage == stage]

    def kept(self, stage: int) -> int:
        """Forward passes whose backward pass had not been done, at most."""
        most = kept = 0
        for done in self.of(stage):
            kept += {"F": 1, "B": -1}.get(done.job.kind, 0)
            most = max(most, kept)
        return most


def training(schedule: Schedule, stages: int, micro: int) -> list[list[Job]]:
    """What each stage does in a step, in order.

    Args:
        schedule: `gpipe` or `1f1b`.
        stages: Of the pipeline.
        micro: Micro-batches.
    """
    return [list(_trained(schedule, stage, stages, micro)) for stage in range(stages)]


def _trained(schedule: Schedule, stage: int, stages: int, micro: int) -> Iterable[Job]:
    first = micro if schedule == "gpipe" else min(stages - 1 - stage, micro)
    yield from (Job("F", stage, number) for number in range(first))
    for number in range(first, micro):
        yield Job("F", stage, number)
        yield Job("B", stage, number - first)
    yield from (Job("B", stage, number) for number in range(micro - first, micro))


def decoding(stages: int, groups: int, turns: int) -> list[list[Job]]:
    """What each stage does while groups of sequences go round, in order.

    Args:
        stages: Of the pipeline.
        groups: Groups of sequences that are under way at once.
        turns: Tokens of each sequence.
    """
    return [
        [Job("D", stage, group, turn) for turn in range(turns) for group in range(groups)] for stage in range(stages)
    ]


def run(
    orders: Sequence[Sequence[Job]], seconds: Callable[[Job], float], handing: Callable[[Job], Handing]
) -> Timeline:
    """When each job is done.

    Args:
        orders: What each stage does, in order.
        seconds: How long a job takes.
        handing: How long its result takes to the next stage; asked for results that another stage needs.

    Raises:
        ValueError: The orders wait for each other.
    """
    stages = len(orders)
    left = [deque(order) for order in orders]
    free = [0.0] * stages
    link: defaultdict[tuple[int, int], float] = defaultdict(float)
    there: dict[Job | None, float] = {None: 0.0}
    runs: list[Run] = []
    ready = deque(range(stages))
    while ready:
        stage = ready.popleft()
        while left[stage] and (needed := _needed(left[stage][0], stages)) in there:
            job = left[stage].popleft()
            start = max(free[stage], there[needed])
            end = free[stage] = start + seconds(job)
            runs.append(Run(job, start, end))
            there[job] = end
            target = _next(job, stages)
            if target != stage:
                sent = handing(job)
                begun = max(end, link[stage, target])
                link[stage, target] = begun + sent.sending
                there[job] = begun + sent.sending + sent.latency
                ready.append(target)
    if any(left):
        raise ValueError("the stages wait for each other")
    return Timeline(stages, tuple(sorted(runs, key=lambda done: (done.job.stage, done.start))))


def _needed(job: Job, stages: int) -> Job | None:
    """The job whose result this one needs; None for one that only waits for its turn."""
    match job.kind:
        case "B" if job.stage == stages - 1:
            return job._replace(kind="F")
        case "B":
            return job._replace(stage=job.stage + 1)
        case _ if job.stage:
            return job._replace(stage=job.stage - 1)
        case "D" if job.turn:
            return job._replace(stage=stages - 1, turn=job.turn - 1)
    return None


def _next(job: Job, stages: int) -> int:
    """The stage that needs the result, or its own where nobody else does."""
    if job.kind == "B":
        return max(job.stage - 1, 0)
    if job.kind == "D":
        return (job.stage + 1) % stages
    return min(job.stage + 1, stages - 1)
