"""Runs of a race in several processes: which one makes which run, and what they tell each other after a round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from axon_compose.learn.race._result import Run, run_of
from axon_compose.learn.ranks import Ranks

__all__ = ["Key", "Round", "divided", "exchanged"]

#: Model, seed and learning rate of a run.
Key: TypeAlias = tuple[str, int, float]


@dataclass(frozen=True)
class Round:
    """What is known after a round.

    Attributes:
        news: Runs that were evaluated or have ended in it.
        left: How many have not ended.
        least: The least part that one of them has spent of its budget.
        due: Whether all states are to be saved; the first process decides.
    """

    news: list[Run]
    left: int
    least: float
    due: bool

    @property
    def ended(self) -> bool:
        """Whether a run has ended in it."""
        return any(run.over for run in self.news)


def exchanged(ranks: Ranks, own: Round) -> Round:
    """What all processes know, of what each of them does."""
    if ranks.size == 1:
        return own
    rounds = [Round(**each | {"news": [run_of(run) for run in each["news"]]}) for each in ranks.exchanged(asdict(own))]
    return Round(
        news=[run for each in rounds for run in each.news],
        left=sum(each.left for each in rounds),
        least=min(each.least for each in rounds),
        due=rounds[0].due,
    )


def divided(keys: Sequence[Key], length: Callable[[Key], float], ranks: Ranks) -> list[Key]:
    """This process's part of some runs: the longest first, each is given to the one that has least to do.

    Args:
        keys: Of all runs.
        length: How long a run takes, in any unit.
        ranks: The processes.
    """
    busy, mine = [0.0] * ranks.size, set()
    for key in sorted(keys, key=length, reverse=True):
        rank = busy.index(min(busy))
        busy[rank] += length(key)
        if rank == ranks.rank:
            mine.add(key)
    return [key for key in keys if key in mine]
