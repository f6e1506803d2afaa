"""What training needs to know of a component's parameters: how they begin, and how they are moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any, Final

from axon_compose.record import record

__all__ = ["Constant", "Learning", "Normal", "matching"]

#: Numerator of the variance of a matrix, divided by its inputs: "small init" (Nguyen and Salazar 2019,
#: arXiv:1910.05895), which is the 0.02 of GPT-2 at a width of 1,000.
_SMALL: Final = 2 / 5


@record
class Normal:
    r"""Numbers from a normal distribution of mean 0.

    Attributes:
        std: Their standard deviation; :math:`\sqrt{2 / (5 n)}` for matrices of n inputs (their last axis) unless given.
        residual: Whether the matrix gives what is added to the residual stream: then it is divided by the root of the
            number of such additions in the model, so that they add up to the same at every depth (Radford et al. 2019,
            "GPT-2").
    """

    std: float | None = None
    residual: bool = False

    def deviation(self, shape: tuple[int, ...], additions: int) -> float:
        """The standard deviation of an array in a model with this number of residual additions."""
        std = sqrt(_SMALL / shape[-1]) if self.std is None else self.std
        return std / sqrt(max(additions, 1)) if self.residual else std


@record
class Constant:
    """The same number everywhere."""

    value: float = 0.0


Initial = Normal | Constant


@record
class Learning:
    """What a component's record declares for training.

    Names are those of `params`, or patterns of them with `*`, such as `*_proj.weight`. Without any declaration, what
    the factory made is where training begins; matrices, and arrays of more axes, decay; vectors and biases do not.

    Attributes:
        undecayed: Further parameters without weight decay: those of two axes and more that are no matrices, such as
            decays of a state, and tables.
        adamw: Matrices that Muon does not move, though they have two axes, such as routers.
        stacked: Arrays of three axes that are matrices in a row, such as those of experts; Muon moves each.
        rates: Parameters to factors of their learning rate.
        initial: `(options, dims)` to initial values: `Normal(…)`, `Constant(…)`, or None for what the factory made. The
            first name that fits counts; what no name fits stays as the factory made it.
        load: Whether the component is a mixture of experts that is called with `publish`, if training balances it, and
            publishes `("routing", (scores, chosen))`: see `axon_compose.learn.balance`.
    """

    undecayed: tuple[str, ...] = ()
    adamw: tuple[str, ...] = ()
    stacked: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    initial: Callable[[Any, Any], Mapping[str, Initial | None]] | None = None
    load: bool = False

    def decays(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether weight decay pulls at a parameter."""
        return len(shape) >= 2 and not name.endswith("bias") and not matching(name, self.undecayed)

    def matrix(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a parameter is a matrix, or a row of them, that Muon may move."""
        rows = len(shape) == 2 or (len(shape) == 3 and matching(name, self.stacked))
        return rows and min(shape[-2:]) > 1 and self.decays(name, shape) and not matching(name, self.adamw)

    def rate(self, name: str) -> float:
        """The factor of a parameter's learning rate."""
        return next((factor for pattern, factor in self.rates.items() if fnmatchcase(name, pattern)), 1.0)

    def names(self) -> Iterator[tuple[str, str]]:
        """The field and the pattern of every name that is declared by itself."""
        for what in ("undecayed", "adamw", "stacked", "rates"):
            yield from ((what, pattern) for pattern in getattr(self, what))

    def faults(self) -> Iterator[str]:
        """What is wrong with the declaration, in one line each."""
        for what in ("undecayed", "adamw", "stacked"):
            value = getattr(self, what)
            if not isinstance(value, tuple | list) or not all(isinstance(each, str) for each in value):
                yield f"`learning.{what}` must be a tuple of texts"
        if not isinstance(self.rates, Mapping) or not all(map(_is_rate, self.rates.items())):
            yield "`learning.rates` must map names to factors of 0 and more"
        if self.initial is not None and not callable(self.initial):
            yield "`learning.initial` must be a function of options and dims"


def matching(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits a name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_rate(entry: tuple[object, object]) -> bool:
    name, factor = entry
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    return isinstance(name, str) and number and 0 <= factor < float("inf")  # type: ignore[operator]
