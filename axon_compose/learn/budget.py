"""When training ends: after a number of steps, tokens, minutes or floating-point operations. Imports no mlx."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal, get_args

__all__ = ["Budget", "Spent", "Unit"]

Unit = Literal["steps", "tokens", "minutes", "flops"]

_NAMES: Final[dict[str, tuple[Unit, float]]] = {
    "step": ("steps", 1), "steps": ("steps", 1), "tok": ("tokens", 1), "token": ("tokens", 1), "tokens": ("tokens", 1),
    "s": ("minutes", 1 / 60), "min": ("minutes", 1), "h": ("minutes", 60),
    "flop": ("flops", 1), "flops": ("flops", 1),
}  # fmt: skip
_FACTORS: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_WRITTEN: Final = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]\+?[0-9]+)?) ?([kMGBTPE]?) ?([a-z]+)")


@dataclass(frozen=True, slots=True)
class Spent:
    """What training has used so far.

    Attributes:
        steps: Updates of the weights.
        tokens: Positions of the batches, padding included.
        seconds: In steps alone: evaluation, samples and files are not counted.
        flops: Of forward and backward passes, as `axon_compose.analysis.cost` counts them: three times the forward
            pass. At least, if some component does not say.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    flops: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of one of four things.

    Attributes:
        unit: `steps`, `tokens`, `minutes` or `flops`.
        amount: How many, above zero.
    """

    unit: Unit
    amount: float

    def __post_init__(self) -> None:
        """Refuse what is no budget.

        Raises:
            ValueError: Saying why.
        """
        if self.unit not in get_args(Unit):
            raise ValueError(f"a budget is in {', '.join(get_args(Unit))}, not in {self.unit!r}")
        if not isfinite(self.amount) or self.amount <= 0:
            raise ValueError(f"a budget must be above zero, not {self.amount:g} {self.unit}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `5min`, `90s`, `300steps`, `20Mtok` or `1e14flop`.

        Raises:
            ValueError: If it is none of these.
        """
        match = _WRITTEN.fullmatch(text.strip())
        unit, factor = _NAMES.get(match[3], (None, 0.0)) if match else (None, 0.0)
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a budget such as 300steps, 20Mtok, 5min or 1e14flop")
        return cls(unit, float(match[1]) * _FACTORS[match[2]] * factor)

    def part(self, spent: Spent) -> float:
        """The part of it that is spent, from 0; 1 and more when it is used up."""
        used = spent.seconds / 60 if self.unit == "minutes" else getattr(spent, self.unit)
        return used / self.amount

    def __str__(self) -> str:
        """As a person would say it: `300 steps`."""
        return f"{self.amount:,.6g} {self.unit}"
