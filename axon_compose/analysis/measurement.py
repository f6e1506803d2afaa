"""What `proof.bench` measures, and its workload, as plain data: comparisons show it beside counted costs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Measurement", "Spread", "Workload"]


@dataclass(frozen=True)
class Workload:
    """The work of each round.

    Attributes:
        prompt: Tokens of each sequence that are read at once.
        steps: Tokens of each sequence decoded after the prompt, one by one; may be 0.
        batch: Sequences per batch.
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


@dataclass(frozen=True)
class Spread:
    """A figure of several rounds.

    Attributes:
        values: One for each round, in order.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def variation(self) -> float:
        """Largest deviation from the median, relative to it."""
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
        prefill: Prompt tokens per second, all sequences together.
        decode: Decoded tokens per second, all sequences together; None without steps.
        peak_bytes: The most that arrays took while it ran, over all rounds.
        process_bytes: The most that the process held, its making included.
        device: Where it ran, such as `cpu`.
        fault: Why there are no figures; empty if there are.
        training: Tokens per second of a training step, all sequences together; where that is the work, `prefill` and
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
