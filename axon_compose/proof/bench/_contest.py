"""What a contest of implementations gave: figures for each workload, and the ratios between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from typing import Any, Final, Literal

from axon_compose.analysis.measurement import Measurement, Spread, Workload

__all__ = ["Contest", "Line", "workloads"]

#: Tokens of the prompt that decoding follows: what is there to be read does not make its time.
_BEFORE: Final = 16

Kind = Literal["prefill", "decode", "training", "memory"]


@dataclass(frozen=True)
class Line:
    """One figure of every subject.

    Attributes:
        kind: What it is.
        workload: What was run.
        measurements: Of all subjects, ours first.
    """

    kind: Kind
    workload: Workload
    measurements: tuple[Measurement, ...]

    def spread(self, at: int) -> Spread | None:
        """Tokens a second of a subject; None where there are none, and for memory."""
        found: Spread | None = None if self.kind == "memory" else getattr(self.measurements[at], self.kind)
        return found

    def ratio(self, at: int) -> float | None:
        """How much faster ours is than a subject, or how much more memory that one takes; above 1 is better."""
        if self.kind == "memory":
            ours, theirs = (self.measurements[index].peak_bytes for index in (0, at))
            return theirs / ours if ours and theirs else None
        fast, other = self.spread(0), self.spread(at)
        return fast.median / other.median if fast and other else None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return {
            "kind": self.kind,
            "workload": asdict(self.workload),
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "ratios": [self.ratio(at) for at in range(1, len(self.measurements))],
        }


@dataclass(frozen=True)
class Contest:
    """Figures of several implementations of one model.

    Attributes:
        name: Of the model.
        subjects: What the implementations are called, ours first.
        settings: How it was stored and where it ran, JSON-ready.
        lines: A line for each figure.
    """

    name: str
    subjects: tuple[str, ...]
    settings: Mapping[str, Any]
    lines: tuple[Line, ...]

    def __repr__(self) -> str:
        return f"<Contest {self.name}: {', '.join(self.subjects)}, {len(self.lines)} figures>"

    @classmethod
    def of(
        cls,
        name: str,
        settings: Mapping[str, Any],
        workloads: Sequence[Workload],
        found: Sequence[Sequence[Measurement]],
    ) -> Contest:
        """Put measurements into lines.

        Args:
            name: Of the model.
            settings: How it was stored and where it ran.
            workloads: What was run.
            found: What `contest` gave.
        """
        lines = [
            Line(kind, work, tuple(measured))
            for work, measured in zip(workloads, found, strict=True)
            for kind in _kinds(work)
        ]
        return cls(name, tuple(one.name for one in found[0]), settings, tuple(lines))

    def geometric_mean(self, at: int, kinds: Iterable[Kind] = ("prefill", "decode", "training")) -> float | None:
        """The mean ratio of speeds against a subject; None without one."""
        wanted = tuple(kinds)
        ratios = [ratio for line in self.lines if line.kind in wanted and (ratio := line.ratio(at))]
        return exp(sum(map(log, ratios)) / len(ratios)) if ratios else None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return {
            "name": self.name,
            "subjects": list(self.subjects),
            "settings": dict(self.settings),
            "lines": [line.to_dict() for line in self.lines],
        }


def _kinds(workload: Workload) -> Iterator[Kind]:
    if workload.training:
        yield "training"
    elif workload.steps:
        yield "decode"
    else:
        yield "prefill"
    if workload.training or not workload.steps:
        yield "memory"


def workloads(
    prompts: Iterable[int], batches: Iterable[int], steps: int, rounds: int, *, training: bool = False
) -> list[Workload]:
    """The usual work: each prompt alone, decoding of several batches after a short prompt, and training if wanted.

    Args:
        prompts: Tokens of prompts.
        batches: Sequences that are decoded together.
        steps: Tokens that are decoded.
        rounds: How often everything is measured.
        training: Take a training step on each of the prompts too.
    """
    lengths = tuple(prompts)
    work = [Workload(length, 0, rounds=rounds) for length in lengths]
    work += [Workload(min(_BEFORE, *lengths), steps, batch, rounds) for batch in batches]
    if training:
        work += [Workload(length, 0, rounds=rounds, training=True) for length in lengths]
    return work
