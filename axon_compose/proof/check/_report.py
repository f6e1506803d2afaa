"""What a check found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from axon_compose.notebook import Shown

__all__ = ["CheckReport", "Truth"]


@dataclass(frozen=True, slots=True)
class Truth:
    """One property of a model, and whether it holds.

    Attributes:
        name: Stable name, e.g. `chunks`.
        claim: What is claimed, in one line.
        passed: Whether it holds.
        figure: What was measured, or None if nothing could be.
        limit: What the figure is compared with.
        relation: `<=` if the figure may not exceed the limit, `>=` if it has to reach it.
        detail: What was looked at; for a failure, where it is: rows, positions, layers.
    """

    name: str
    claim: str
    passed: bool
    figure: float | None = None
    limit: float | None = None
    relation: Literal["<=", ">="] = "<="
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport(Shown):
    """What `check` found out about a model.

    Attributes:
        name: The model's name.
        seed: Of its random weights and tokens.
        layers: Number of layers that were run.
        layers_described: Number of layers of the description, of which those are a choice.
        truths: Every truth that was tried, in order.
        shrunk: Whether it is a copy in small sizes that was run.
    """

    name: str
    seed: int
    layers: int
    layers_described: int
    truths: tuple[Truth, ...]
    shrunk: bool = True

    def __repr__(self) -> str:
        return f"<CheckReport {self.name}: {len(self.failed)} of {len(self.truths)} checks failed>"

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(truth.passed for truth in self.truths)

    @property
    def failed(self) -> tuple[Truth, ...]:
        """The truths that do not hold."""
        return tuple(truth for truth in self.truths if not truth.passed)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data; a figure that is no finite number becomes a string."""
        return {
            "name": self.name,
            "seed": self.seed,
            "layers": self.layers,
            "layers_described": self.layers_described,
            "shrunk": self.shrunk,
            "passed": self.passed,
            "truths": [{**asdict(truth), "figure": _finite(truth.figure)} for truth in self.truths],
        }


def _finite(figure: float | None) -> float | str | None:
    if figure is None or abs(figure) < float("inf"):
        return figure
    return str(figure)
