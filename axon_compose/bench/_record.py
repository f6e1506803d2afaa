"""What is measured, with what work, and what was found: plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol

from axon_compose.checkpoint import require

__all__ = ["Measurement", "Run", "Spread", "Subject", "Workload"]


@dataclass(frozen=True)
class Workload:
    """The work of each round.

    Attributes:
        prompt: Tokens of each sequence that are read at once.
        steps: Tokens of each sequence that are decoded behind them, one by one.
        batch: Sequences that run together.
        rounds: How often everything is measured, each time in a fresh process.

    Raises:
        ValueError: If a number is below 1.
    """

    prompt: int = 512
    steps: int = 32
    batch: int = 1
    rounds: int = 3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"`{name}` must be 1 or more")


class Run(Protocol):
    """A model that is ready to run; a `Subject` says how to make one. Each method returns when all is computed.

    Attributes:
        device: Where it runs, such as `cpu`.
    """

    device: str

    def prefill(self) -> None:
        """Read the prompt of every sequence into fresh caches."""

    def step(self) -> None:
        """Decode one more token of every sequence."""

    def reset_peak(self) -> None:
        """Count the peak of memory anew."""

    def peak_bytes(self) -> int:
        """The most that arrays have taken since: weights, caches and what was needed in between."""


@dataclass(frozen=True)
class Subject:
    """Something whose speed is measured: a name, and how a process of its own makes it.

    Attributes:
        name: What it is called in the answer.
        make: `module:function`, which gets `arguments` and a `Workload` and gives a `Run`.
        arguments: JSON-ready.
        needs: Bytes that it takes for sure: with fewer it is not tried.
        largest: Names and bytes of its largest parts, for the refusal.
    """

    name: str
    make: str
    arguments: Mapping[str, Any]
    needs: int = 0
    largest: Iterable[tuple[str, int]] = field(default=(), repr=False)

    def require(self) -> None:
        """Refuse it where memory is too small.

        Raises:
            CheckpointError: AX401.
        """
        require(self.needs, f"`{self.name}`", self.largest)


@dataclass(frozen=True)
class Spread:
    """A figure of several rounds.

    Attributes:
        values: One for each round, in order.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    @property
    def variation(self) -> float:
        """How far the farthest round is from the median, as a part of it."""
        middle = self.median
        return max(abs(value - middle) for value in self.values) / middle

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data, median first."""
        return {"median": self.median, "least": min(self.values), "most": max(self.values), "rounds": list(self.values)}


@dataclass(frozen=True)
class Measurement:
    """What was measured of one subject; or why nothing was.

    Attributes:
        name: Of the subject.
        prefill: Tokens of prompts a second, all sequences together.
        decode: Decoded tokens a second, all sequences together.
        peak_bytes: The most that arrays took while it ran, over all rounds.
        process_bytes: The most that the process held, its making included.
        device: Where it ran, such as `cpu`.
        fault: Why there are no figures; empty if there are.
    """

    name: str
    prefill: Spread | None = None
    decode: Spread | None = None
    peak_bytes: int | None = None
    process_bytes: int | None = None
    device: str = ""
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return {
            "name": self.name,
            "prefill_tokens_per_second": self.prefill and self.prefill.to_dict(),
            "decode_tokens_per_second": self.decode and self.decode.to_dict(),
            "peak_bytes": self.peak_bytes,
            "process_bytes": self.process_bytes,
            "device": self.device or None,
            "fault": self.fault or None,
        }
