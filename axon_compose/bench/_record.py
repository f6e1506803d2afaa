"""What is measured, with what work, and what was found: plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from axon_compose.checkpoint import require

__all__ = ["Measurement", "Run", "Spread", "Subject", "Workload"]


@dataclass(frozen=True)
class Workload:
    """The work of each round.

    Attributes:
        prompt: Tokens of each sequence that are read at once.
        steps: Tokens of each sequence that are decoded behind them, one by one; with 0, none is.
        batch: Sequences that run together.
        rounds: How often everything is measured.
        training: One training step on the prompts instead: all weights, with Adam.

    Raises:
        ValueError: If a number is below 1.
    """

    prompt: int = 512
    steps: int = 32
    batch: int = 1
    rounds: int = 3
    training: bool = False

    def __post_init__(self) -> None:
        for name, least in (("prompt", 1), ("steps", 0), ("batch", 1), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be {least} or more")


class Run(Protocol):
    """A model that is ready to run; a `Subject` says how to make one. Its methods return when all is computed.

    Attributes:
        device: Where it runs, such as `cpu`.
    """

    device: str

    def begin(self, workload: Workload) -> None:
        """Make prompts for this work, which is run next; forget what was there for another."""

    def prefill(self) -> None:
        """Read the prompt of every sequence into fresh caches."""

    def decode(self, steps: int) -> None:
        """Decode so many more tokens of every sequence, one behind the other."""

    def train(self) -> None:
        """One step of training on the prompts."""

    def reset_peak(self) -> None:
        """Count the peak of memory anew."""

    def peak_bytes(self) -> int:
        """The most that arrays have taken since: weights, caches and what was needed in between."""


@dataclass(frozen=True)
class Subject:
    """Something whose speed is measured: a name, and how a process of its own makes it.

    Attributes:
        name: What it is called in the answer.
        make: `module:function`, which gets `arguments` and gives a `Run`.
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
        decode: Decoded tokens a second, all sequences together; None without steps.
        peak_bytes: The most that arrays took while it ran, over all rounds.
        process_bytes: The most that the process held, its making included.
        device: Where it ran, such as `cpu`.
        fault: Why there are no figures; empty if there are.
        training: Tokens a second of a training step, all sequences together; where that is the work, `prefill` and
            `decode` are None.
    """

    name: str
    prefill: Spread | None = None
    decode: Spread | None = None
    peak_bytes: int | None = None
    process_bytes: int | None = None
    device: str = ""
    fault: str = ""
    training: Spread | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return {
            "name": self.name,
            "prefill_tokens_per_second": self.prefill and self.prefill.to_dict(),
            "decode_tokens_per_second": self.decode and self.decode.to_dict(),
            "training_tokens_per_second": self.training and self.training.to_dict(),
            "peak_bytes": self.peak_bytes,
            "process_bytes": self.process_bytes,
            "device": self.device or None,
            "fault": self.fault or None,
        }
