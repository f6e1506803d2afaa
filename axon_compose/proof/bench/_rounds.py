"""Rounds that are interleaved, A B C A B C: what else the machine does slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from axon_compose.analysis.measurement import Measurement, Spread, Workload
from axon_compose.diagnostics import Refusal
from axon_compose.proof.bench._process import Failed, Process, Round
from axon_compose.proof.bench._record import Subject

__all__ = ["Progress", "contest", "measure"]

#: Called before each run with the name of the subject, the round from 1, and how many there are; with no name at last.
Progress = Callable[[str, int, int], None]


def measure(
    subjects: Sequence[Subject], workload: Workload | None = None, *, progress: Progress | None = None
) -> list[Measurement]:
    """Measure prefill, decoding and peak memory of several subjects, each round in a fresh process, one at a time.

    A subject that does not fit into memory is not tried, and one that fails is not tried again: its measurement says
    why, and the others go on.

    Args:
        subjects: What to measure.
        workload: Prompt, steps, sequences and rounds.
        progress: See `Progress`.

    Returns:
        A measurement for each subject, in order.
    """
    workload = workload or Workload()
    tries = [_Try(subject, workload) for subject in subjects]
    for number in range(1, workload.rounds + 1):
        for one in tries:
            with closing(one.keeper):
                one.run(number, progress)
    if progress:
        progress("", workload.rounds, workload.rounds)
    return [one.measurement() for one in tries]


def contest(
    subjects: Sequence[Subject], workloads: Sequence[Workload], *, progress: Progress | None = None
) -> list[list[Measurement]]:
    """Measure several subjects at several workloads. All are in memory together, each in a process that it keeps.

    Args:
        subjects: What to measure.
        workloads: What they run, in order.
        progress: See `Progress`; rounds are counted over all workloads.

    Returns:
        For each workload, a measurement for each subject.
    """
    done, total, found = 0, sum(workload.rounds for workload in workloads), []
    with ExitStack() as stack:
        keepers = [stack.enter_context(closing(_Keeper(subject))) for subject in subjects]
        for workload in workloads:
            tries = [_Try(subject, workload, keeper) for subject, keeper in zip(subjects, keepers, strict=True)]
            for number in range(done + 1, done + workload.rounds + 1):
                for one in tries:
                    one.run(number, progress, total)
            done += workload.rounds
            found.append([one.measurement() for one in tries])
    if progress:
        progress("", total, total)
    return found


class _Keeper:
    """The process of a subject, started when it is first needed, and again when it has ended."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.process: Process | None = None

    def run(self, workload: Workload) -> Round:
        try:
            if self.process is None:
                self.subject.require()
                self.process = Process(self.subject)
            return self.process.run(workload)
        except Failed:
            self.close()
            raise

    def close(self) -> None:
        if self.process:
            self.process.close()
        self.process = None


class _Try:
    """One subject at one workload."""

    def __init__(self, subject: Subject, workload: Workload, keeper: _Keeper | None = None) -> None:
        self.subject, self.workload = subject, workload
        self.keeper = keeper or _Keeper(subject)
        self.rounds: list[Round] = []
        self.fault = ""

    def run(self, number: int, progress: Progress | None, total: int | None = None) -> None:
        """One round, unless an earlier one failed."""
        if self.fault:
            return
        if progress:
            progress(self.subject.name, number, total or self.workload.rounds)
        try:
            self.rounds.append(self.keeper.run(self.workload))
        except Refusal as error:
            self.fault = error.message
        except Failed as error:
            self.fault = str(error)

    def measurement(self) -> Measurement:
        if self.fault:
            return Measurement(self.subject.name, fault=self.fault)
        work, rounds = self.workload, self.rounds

        def speed(tokens: int, seconds: Callable[[Round], float]) -> Spread | None:
            return Spread(tuple(work.batch * tokens / seconds(one) for one in rounds)) if tokens else None

        training = speed(work.prompt, lambda one: one.training_seconds) if work.training else None
        prefill = None if training else speed(work.prompt, lambda one: one.prefill_seconds)
        decode = None if training else speed(work.steps, lambda one: one.decode_seconds)
        return Measurement(
            self.subject.name,
            prefill=prefill,
            decode=decode,
            training=training,
            peak_bytes=max(one.peak_bytes for one in rounds),
            process_bytes=max(one.process_bytes for one in rounds),
            device=rounds[-1].device,
        )
