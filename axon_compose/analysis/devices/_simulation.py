"""Schedules of whole clusters, simulated from the figures of a plan: pipelines, tensor groups inside, replicas around.

Every layout of the devices into tensor x pipeline x data is estimated for several numbers of micro-batches, and the
best are simulated job by job. The estimate of a step is that of equal stages, (m + p - 1) times the slowest stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from axon_compose.analysis.devices._layout import Layout
from axon_compose.analysis.devices._schedule import Job, Schedule, Timeline, decoding, run, training
from axon_compose.analysis.devices._stage_times import StageTimes, Took

__all__ = ["Candidate", "Simulated", "simulated"]

#: Tokens of each sequence that decoding is simulated for; the second half is measured.
_TURNS = 8


@dataclass(frozen=True)
class Candidate:
    """A way to use the devices.

    Attributes:
        layout: How they are divided.
        micro: Micro-batches of a training step, or groups of sequences that are under way at once, of each replica.
        times: How long each stage takes for one of them.
        schedule: `1f1b` or `gpipe` for a training step; None for decoding.
        segment: Layers that the backward pass computes again at a time, None or 0 for none.
    """

    layout: Layout
    micro: int
    times: StageTimes
    schedule: Schedule | None
    segment: int | None = None

    @property
    def stages(self) -> range:
        """Of the pipeline."""
        return range(self.layout.pipeline)

    def took(self, job: Job) -> Took:
        """How long a job of a stage takes."""
        return {"F": self.times.forward, "B": self.times.backward, "D": self.times.decode}[job.kind](job.stage)

    def kept(self, stage: int) -> int:
        """Micro-batches whose activations a stage keeps at most."""
        if self.schedule is None:
            return 0
        return self.micro if self.schedule == "gpipe" else min(self.layout.pipeline - stage, self.micro)

    def memory_bytes(self) -> int:
        """What the device needs that needs most."""
        return max(map(self._memory, self.stages))

    def _memory(self, stage: int) -> int:
        spread, sequences = self.times.spread, self.times.sequences
        weights = self.times.weight_bytes(stage)
        if self.schedule is None:
            caches = spread.cache_bytes(stage, sequences * self.micro)
            return weights + caches + spread.between_bytes(stage, sequences)
        once, each = spread.kept_bytes(stage, sequences, self.segment)
        return 4 * weights + once + self.kept(stage) * each  # gradients, and two moments of Adam

    def estimate(self) -> float:
        """Seconds of a step, or of a token of every sequence, if stages were equal."""
        if self.schedule is None:
            slowest = max(self.times.decode(stage).seconds for stage in self.stages)
            return max(self.micro, self.layout.pipeline) * slowest
        slowest = max(self.times.forward(s).seconds + self.times.backward(s).seconds for s in self.stages)
        return (self.micro + self.layout.pipeline - 1) * slowest + self._summing(0)

    def _summing(self, stage: int) -> float:
        return sum(self.times.gradient_seconds(stage))


@dataclass(frozen=True)
class Simulated:
    """What came out of a simulation.

    Attributes:
        layout: How the devices were divided.
        by_rank: Whether replicas shared the experts.
        schedule: `1f1b`, `gpipe` or `decoding`.
        micro: Micro-batches of each replica, or groups of its sequences under way.
        sequences: Of one of them.
        seconds: Of a step, or of a token of every sequence.
        tokens_per_second: Of all devices.
        bubble: Part of the time in which a stage waits for another.
        computing: Part in which it computes.
        tensor: Part in which devices that share a layer exchange their outputs.
        experts: Part in which tokens go to their experts and back.
        gradients: Part in which a step waits for sums of gradients.
        memory_bytes: Of the device that needs most.
        fits: Whether that is there; None if nobody asked.
        timeline: What each stage did when.
    """

    layout: Layout
    by_rank: bool
    schedule: str
    micro: int
    sequences: int
    seconds: float
    tokens_per_second: float
    bubble: float
    computing: float
    tensor: float
    experts: float
    gradients: float
    memory_bytes: int
    fits: bool | None
    timeline: Timeline

    @property
    def name(self) -> str:
        """The layout, and where experts are."""
        return f"{self.layout.name}, experts by rank" if self.by_rank else self.layout.name


def simulated(candidate: Candidate, *, overlap: bool) -> Simulated:
    """Run a schedule job by job.

    Args:
        candidate: What is run.
        overlap: Whether gradients of a layer are summed while the layers before it are still computed.
    """
    times, layout = candidate.times, candidate.layout
    took = {job: candidate.took(job) for job in _kinds(candidate)}
    handing = {job: times.handing(job.stage, decoding=job.kind == "D") for job in took}
    timeline = run(_orders(candidate), lambda job: took[_kind(job)].seconds, lambda job: handing[_kind(job)])
    seconds = _turn(timeline) if candidate.schedule is None else timeline.seconds
    waited = 0.0 if candidate.schedule is None else max(_late(candidate, timeline, overlap=overlap), 0.0)
    tokens = candidate.micro * times.sequences * layout.data
    if candidate.schedule is not None:
        tokens *= times.spread.pieces.context
    parts = _parts(candidate, took, seconds + waited)
    memory = candidate.memory_bytes()
    return Simulated(
        layout=layout,
        by_rank=times.by_rank,
        schedule=candidate.schedule or "decoding",
        micro=candidate.micro,
        sequences=times.sequences,
        seconds=seconds + waited,
        tokens_per_second=tokens / (seconds + waited),
        bubble=max(1 - sum(parts) - waited / (seconds + waited), 0.0),
        computing=parts[0],
        tensor=parts[1],
        experts=parts[2],
        gradients=waited / (seconds + waited),
        memory_bytes=memory,
        fits=times.hardware.fits(memory),
        timeline=timeline,
    )


def _orders(candidate: Candidate) -> Sequence[Sequence[Job]]:
    if candidate.schedule is None:
        return decoding(candidate.layout.pipeline, candidate.micro, _TURNS)
    return training(candidate.schedule, candidate.layout.pipeline, candidate.micro)


def _kinds(candidate: Candidate) -> Iterator[Job]:
    """One job of each kind and stage: micro-batches are alike."""
    for kind in "D" if candidate.schedule is None else "FB":
        for stage in candidate.stages:
            yield Job(kind, stage, 0)


def _kind(job: Job) -> Job:
    return job._replace(micro=0, turn=0)


def _turn(timeline: Timeline) -> float:
    """Seconds of one token of every sequence, once the pipeline is full."""
    ends = [done.end for done in timeline.of(timeline.stages - 1)]
    each = len(ends) // _TURNS
    first, last = ends[each * (_TURNS // 2) - 1], ends[-1]
    return (last - first) / (_TURNS - _TURNS // 2)


def _parts(candidate: Candidate, took: dict[Job, Took], seconds: float) -> tuple[float, float, float]:
    """Parts of the time of all stages that go into computing, tensor groups and experts."""
    total = seconds * candidate.layout.pipeline / candidate.micro
    return (
        sum(each.computing for each in took.values()) / total,
        sum(each.tensor for each in took.values()) / total,
        sum(each.experts for each in took.values()) / total,
    )


def _late(candidate: Candidate, timeline: Timeline, *, overlap: bool) -> float:
    """Seconds from the end of the last job until all gradients are summed."""
    ends = [_summed(candidate, timeline, stage, overlap=overlap) for stage in candidate.stages]
    return max(ends) - timeline.seconds


def _summed(candidate: Candidate, timeline: Timeline, stage: int, *, overlap: bool) -> float:
    """When a stage has all its gradients: those of a layer begin when it is done in the last backward pass."""
    last = timeline.of(stage)[-1]
    sums = candidate.times.gradient_seconds(stage)
    begun = last.start if overlap else last.end
    end = begun
    for number, seconds in enumerate(sums, 1):
        ready = begun + (last.end - begun) * number / len(sums)
        end = max(end, ready) + seconds
    return end
