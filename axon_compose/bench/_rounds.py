"""Rounds that are interleaved, A B C A B C: what else the machine does slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from axon_compose.bench._process import Failed, Round, run
from axon_compose.bench._record import Measurement, Spread, Subject, Workload
from axon_compose.checkpoint import CheckpointError

__all__ = ["Progress", "measure"]

#: Called before each run with the name of the subject, the round from 1, and how many there are; with no name at last.
Progress = Callable[[str, int, int], None]


def measure(
    subjects: Sequence[Subject], workload: Workload | None = None, *, progress: Progress | None = None
) -> list[Measurement]:
    """Measure prefill, decoding and peak memory of several subjects, each in processes of its own, one at a time.

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
    rounds: list[list[Round]] = [[] for _ in subjects]
    faults = [""] * len(subjects)
    for number in range(1, workload.rounds + 1):
        for at, subject in enumerate(subjects):
            if faults[at]:
                continue
            if progress:
                progress(subject.name, number, workload.rounds)
            try:
                subject.require()
                rounds[at].append(run(subject, workload))
            except CheckpointError as error:
                faults[at] = error.message
            except Failed as error:
                faults[at] = str(error)
    if progress:
        progress("", workload.rounds, workload.rounds)
    return [_joined(*parts, workload) for parts in zip(subjects, rounds, faults, strict=True)]


def _joined(subject: Subject, rounds: list[Round], fault: str, workload: Workload) -> Measurement:
    if fault:
        return Measurement(subject.name, fault=fault)
    read, decoded = (workload.batch * tokens for tokens in (workload.prompt, workload.steps))
    return Measurement(
        subject.name,
        prefill=Spread(tuple(read / found.prefill_seconds for found in rounds)),
        decode=Spread(tuple(decoded / found.decode_seconds for found in rounds)),
        peak_bytes=max(found.peak_bytes for found in rounds),
        process_bytes=max(found.process_bytes for found in rounds),
        device=rounds[-1].device,
    )
