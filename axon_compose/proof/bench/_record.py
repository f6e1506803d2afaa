"""What is measured: a subject, and the run that a process of its own makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from axon_compose.analysis.measurement import Workload
from axon_compose.machine.memory import require

__all__ = ["Run", "Subject"]


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
        """Decode so many more tokens of every sequence, one after the other."""

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
