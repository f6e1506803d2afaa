"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axon_compose.learn.history import History

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        out: The folder, which mlx_lm runs.
        finished: Whether the budget is spent; if not, somebody stopped the run, and it can be continued. Of a run that
            is not the last, also whether nobody asked for an end.
        steps: Updates of the weights.
        tokens: Positions of all batches.
        seconds: In steps alone.
        flops: Of forward and backward passes.
        loss: Of the last step.
        held_out: Of what is held out, after the last step; None if nothing is.
        bits_per_byte: The same per byte of text.
        accuracy: Part of the held-out targets of a task that have the largest logit.
        sample: What the model wrote at the end.
        peak_memory: Most bytes of arrays at once.
        history: Every line of the record.
    """

    out: Path
    finished: bool
    steps: int
    tokens: int
    seconds: float
    flops: int
    loss: float
    held_out: float | None
    bits_per_byte: float | None
    accuracy: float | None
    sample: str | None
    peak_memory: int
    history: History

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, without the history."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "history"}
        return values | {"out": str(self.out)}
