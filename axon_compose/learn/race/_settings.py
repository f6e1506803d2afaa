"""What is the same for all models of a race. Imports no mlx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from axon_compose.learn.budget import Budget
from axon_compose.learn.race._match import Figure

__all__ = ["RATES", "SCALE", "SWEPT", "Settings"]

#: Learning rates that every model tries.
RATES: Final = (1e-3, 3e-3, 1e-2)
#: Dims that are changed to make models equal, as far as a file has them.
SCALE: Final = ("hidden_size", "intermediate_size")
#: The seed of the runs that choose the learning rate; no result comes of them.
SWEPT: Final = 2**32 - 1


@dataclass(frozen=True)
class Settings:
    """The terms of a race.

    Attributes:
        budget: Of each run.
        seeds: Runs of each model, with seeds from 0.
        rates: Learning rates that are tried, each with a whole run of a seed of its own; the one with the lowest loss
            is taken. With one rate nothing is tried.
        batch: Sequences of a step.
        points: Evaluations of a run, at equal parts of the budget.
        match: The figure that is made equal; None leaves the models as they are.
        scale: Dims that are changed for it.
        recipe: Further options of training that differ from their defaults.
    """

    budget: Budget
    seeds: int = 3
    rates: tuple[float, ...] = RATES
    batch: int = 32
    points: int = 10
    match: Figure | None = None
    scale: tuple[str, ...] = SCALE
    recipe: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no race.

        Raises:
            ValueError: Saying why.
        """
        for name, most in (("seeds", 1000), ("batch", 2**20), ("points", 1000)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"`{name}` is not from 1 to {most:,}: {getattr(self, name)}")
        if not self.rates or not all(rate > 0 for rate in self.rates) or len(set(self.rates)) < len(self.rates):
            raise ValueError("`rates` are learning rates above 0, each once")

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self) | {"rates": list(self.rates), "scale": list(self.scale), "recipe": dict(self.recipe)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """What `to_dict` gave."""
        more = {
            "budget": Budget(**data["budget"]),
            "rates": tuple(data["rates"]),
            "scale": tuple(data["scale"]),
            "recipe": tuple(data["recipe"].items()),
        }
        return cls(**{**data, **more})
