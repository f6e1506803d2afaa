r"""What a few seeds can tell: an interval around a mean of paired differences, by Student's t.

Two models that saw the same data in the same order with the same seed are a pair. With differences
:math:`d_1 \dots d_n` of mean :math:`\bar d` and standard deviation s, and e the error of what was measured on a finite
number of held-out answers, the interval is

.. math::
    \bar d \pm t_{n-1, 1 - \alpha / 2} \sqrt{s^2 / n + e^2}

(Student 1908). A rank test has nothing to say here: of three seeds against three, its smallest two-sided p is 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, cos, inf, pi, sin, sqrt
from statistics import fmean, stdev
from typing import Final

__all__ = ["LEVEL", "interval", "quantile", "within"]

#: The chance to see a difference that is none, over all comparisons of a race together.
LEVEL: Final = 0.05


def interval(differences: Sequence[float], error: float = 0.0, level: float = LEVEL) -> tuple[float, float]:
    """Where the mean difference lies, with the probability 1 - `level`; everywhere, for fewer than two.

    Args:
        differences: One for each seed.
        error: Standard error of each of them that is common to all seeds.
        level: The chance that it lies elsewhere.
    """
    n = len(differences)
    if n < 2:
        return -inf, inf
    mean = fmean(differences)
    reach = quantile(1 - level / 2, n - 1) * sqrt(stdev(differences) ** 2 / n + error**2)
    return mean - reach, mean + reach


def within(t: float, freedom: int) -> float:
    """The probability of Student's t to lie between -t and t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def quantile(probability: float, freedom: int) -> float:
    """What Student's t is below with a probability above one half, by bisection."""
    wanted, low, high = 2 * probability - 1, 0.0, 1.0
    while within(high, freedom) < wanted:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < wanted else (low, middle)
    return (low + high) / 2
