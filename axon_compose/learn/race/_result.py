"""What a race has shown: runs, standings, and which differences are significant. Imports no mlx."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf, sqrt
from statistics import median
from typing import Any, Literal

from axon_compose.learn.race._settings import Settings
from axon_compose.learn.race._statistics import LEVEL, interval
from axon_compose.notebook import Printed

__all__ = ["Entrant", "Point", "RaceResult", "Run", "Standing", "Verdict", "run_of"]


@dataclass(frozen=True)
class Point:
    """An evaluation.

    Attributes:
        step: Steps before it.
        tokens: Tokens that were trained on.
        seconds: In steps of training alone.
        flops: Of forward and backward passes.
        loss: Mean cross entropy of held-out targets, in nats.
        accuracy: Part of held-out targets that have the largest logit; None for text.
    """

    step: int
    tokens: int
    seconds: float
    flops: int
    loss: float
    accuracy: float | None = None


@dataclass(frozen=True)
class Run:
    """One model, trained once.

    Attributes:
        model: Its name.
        seed: Of weights and data.
        rate: Learning rate at its peak.
        points: Evaluations, in order.
        done: Whether the budget is spent.
        fault: Why it ended early, or None.
    """

    model: str
    seed: int
    rate: float
    points: tuple[Point, ...] = ()
    done: bool = False
    fault: str | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.done or self.fault is not None


def run_of(data: Mapping[str, Any]) -> Run:
    """A run that was written as JSON."""
    return Run(**{**data, "points": tuple(Point(**point) for point in data["points"])})


@dataclass(frozen=True)
class Entrant:
    """A model of a race, as it ran.

    Attributes:
        name: As the table has it.
        digest: Of its plan: what a race is continued with.
        parameters: Of all weights.
        flops: Of a forward pass over a token of a sequence, mean.
        state_bytes: Caches after a sequence, in bfloat16.
        dims: Those that were changed to make models equal.
        off: How far the figure that was made equal is from the first model's, as a part of it; 0 if none was.
    """

    name: str
    digest: str
    parameters: int
    flops: int
    state_bytes: int
    dims: dict[str, int] = field(default_factory=dict)
    off: float = 0.0


@dataclass(frozen=True)
class Standing:
    """Where a model stands.

    Attributes:
        name: Of the model.
        rate: The learning rate that was chosen for it.
        scores: By seed, at the end, or so far in a race that was stopped: accuracies, or losses. A run that ended early
            has none: what it had reached until then was not reached with the budget.
        median: Of the scores; None where there is none.
        tokens_per_second: Of training, median over the same runs.
        edge: Whether the chosen learning rate is at the end of the grid, so that a better one may lie beyond.
    """

    name: str
    rate: float | None
    scores: tuple[float, ...]
    median: float | None
    tokens_per_second: float | None
    edge: bool

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest score."""
        return (min(self.scores), max(self.scores)) if self.scores else None


@dataclass(frozen=True)
class Verdict:
    """The difference of two models, and whether it is significant.

    Attributes:
        ahead: The one with the better mean.
        behind: The other one.
        mean: By how much, in the unit of the score, above 0.
        low: Lower end of the interval.
        high: Upper end.
        significant: Whether 0 lies outside of the interval.
    """

    ahead: str
    behind: str
    mean: float
    low: float
    high: float
    significant: bool


@dataclass(frozen=True)
class RaceResult(Printed):
    """A race, finished or not.

    Attributes:
        material: What it was run on.
        chance: Accuracy of a blind answer; None if losses are compared.
        scored: Held-out targets of an evaluation.
        length: Tokens of a sequence.
        settings: The terms.
        entrants: The models, in the order given.
        runs: All of them, those that chose a learning rate included.
        sweeps: Runs that only chose a learning rate.
        bits: Bits a byte for one nat a token, for text.
    """

    material: str
    chance: float | None
    scored: int
    length: int
    settings: Settings
    entrants: tuple[Entrant, ...]
    runs: tuple[Run, ...]
    sweeps: tuple[Run, ...] = ()
    bits: float | None = None

    @property
    def metric(self) -> Literal["accuracy", "loss"]:
        """What is compared."""
        return "loss" if self.chance is None else "accuracy"

    @property
    def finished(self) -> bool:
        """Whether every run has spent its budget or failed."""
        wanted = len(self.entrants) * self.settings.seeds
        return len(self.runs) == wanted and all(run.over for run in self.runs)

    def score(self, point: Point) -> float:
        """Accuracy, or loss: in bits a byte for text."""
        if self.chance is None:
            return point.loss * (self.bits or 1.0)
        return point.accuracy or 0.0

    def standing(self, name: str) -> Standing:
        """Where a model stands now."""
        mine = [run for run in self.runs if run.model == name and run.points and run.fault is None]
        scores = tuple(self.score(run.points[-1]) for run in mine)
        speeds = [p.tokens / p.seconds for run in mine for p in run.points[-1:] if p.seconds]
        rate = next((run.rate for run in self.runs if run.model == name), None)
        edge = len(self.settings.rates) > 1 and rate in (min(self.settings.rates), max(self.settings.rates))
        middle = median(scores) if scores else None
        return Standing(name, rate, scores, middle, median(speeds) if speeds else None, edge)

    def standings(self) -> list[Standing]:
        """The best median first; models without a score last."""
        sign = 1 if self.metric == "loss" else -1
        found = [self.standing(entrant.name) for entrant in self.entrants]
        return sorted(found, key=lambda each: (each.median is None, sign * (each.median or 0.0)))

    def verdicts(self) -> list[Verdict]:
        """The best model against each other one, all at a level of 5 % together (Bonferroni)."""
        names = [each.name for each in self.standings()]
        return [self.compared(names[0], other, LEVEL / (len(names) - 1)) for other in names[1:]]

    def compared(self, first: str, other: str, level: float = LEVEL) -> Verdict:
        """The difference of two models, by name.

        Args:
            first: One of them.
            other: The other one; the verdict says which is ahead.
            level: The chance that the interval does not hold the difference.
        """
        mine, theirs = (self._by_seed(name) for name in (first, other))
        seeds = sorted(mine.keys() & theirs.keys())
        sign = -1 if self.metric == "loss" else 1
        differences = [sign * (mine[seed] - theirs[seed]) for seed in seeds]
        if not differences:
            return Verdict(first, other, 0.0, -inf, inf, significant=False)
        low, high = interval(differences, self._error(mine.values(), theirs.values()), level)
        mean = sum(differences) / len(differences)
        if mean < 0:  # the better median is not the better mean
            first, other, mean, low, high = other, first, -mean, -high, -low
        return Verdict(first, other, mean, low, high, significant=low > 0)

    def _by_seed(self, name: str) -> dict[int, float]:
        return {run.seed: self.score(run.points[-1]) for run in self.runs if run.model == name and run.done}

    def _error(self, *scores: Iterable[float]) -> float:
        """Of a difference of two accuracies, from the number of held-out targets; 0 for losses."""
        if self.metric == "loss":
            return 0.0
        means = [sum(each) / max(len(each), 1) for each in map(list, scores)]
        return sqrt(sum(p * (1 - p) for p in means) / max(self.scored, 1))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RaceResult:
        """What `to_dict` gave, and a command printed as `result`."""
        return cls(
            material=data["material"],
            chance=data["chance"],
            scored=data["scored"],
            length=data["length"],
            settings=Settings.from_dict(data["settings"]),
            entrants=tuple(Entrant(**each) for each in data["entrants"]),
            runs=tuple(map(run_of, data["runs"])),
            sweeps=tuple(map(run_of, data["sweeps"])),
            bits=data["bits"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data; intervals without an end are null."""
        verdicts = [asdict(each) for each in self.verdicts()]
        for each in verdicts:
            each |= {end: None if abs(each[end]) == inf else each[end] for end in ("low", "high")}
        return {
            "material": self.material,
            "metric": self.metric,
            "chance": self.chance,
            "scored": self.scored,
            "length": self.length,
            "bits": self.bits,
            "finished": self.finished,
            "settings": self.settings.to_dict(),
            "entrants": [asdict(each) for each in self.entrants],
            "standings": [asdict(each) | {"scores": list(each.scores)} for each in self.standings()],
            "verdicts": verdicts,
            "runs": [asdict(run) for run in self.runs],
            "sweeps": [asdict(run) for run in self.sweeps],
        }
