"""Axes of a chart: powers where numbers allow it, ticks at round numbers, words for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Axis", "brief", "label", "scale"]

#: How far a limit is from a value at least, as a factor.
_AIR: Final = 1.1


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: What is counted.
        words: A number of it, as a tick says it.
        base: Ticks stand at powers of it; at 2 and 5 times those of 10 too where there are few.
    """

    label: str
    words: Callable[[float], str]
    base: int = 10


def brief(words: Callable[[int], str]) -> Callable[[float], str]:
    """A way to say whole numbers, without zeros at the end: `2 GB` for `2.00 GB`."""
    return lambda number: re.sub(r"\.0+(?!\d)|(\.\d*[1-9])0+(?!\d)", r"\1", words(round(number)))


def label(axes: Axes, across: Axis, up: Axis) -> None:
    """Say what is counted: below, and above the axis that runs upwards, where one reads it without turning the head."""
    axes.set_xlabel(across.label)
    axes.set_title(up.label)


def scale(axes: Axes, side: Literal["x", "y"], axis: Axis, values: Collection[float], *, tight: bool = False) -> None:
    """Ticks and limits of an axis.

    Args:
        axes: The chart.
        side: Which axis.
        axis: What runs along it.
        values: What must lie on it, at least one, none below 0. A 0 has no place among powers: then steps are equal.
        tight: From the lowest to the highest value, not to the next round numbers.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = min(values), max(values)
    ticked = axes.xaxis if side == "x" else axes.yaxis
    set_limits = axes.set_xlim if side == "x" else axes.set_ylim
    if low > 0:
        (axes.set_xscale if side == "x" else axes.set_yscale)("log", base=axis.base)
        start, stop = (low, high) if tight else (_round(low / _AIR, down=True), _round(high * _AIR))
        if start == stop:
            start, stop = start / 2, stop * 2
        set_limits(start, stop)
        few = axis.base == 10 and stop / start < 1000
        ticked.set_major_locator(LogLocator(axis.base, subs=(1, 2, 5) if few else (1,)))
        ticked.set_minor_locator(NullLocator())
    else:
        set_limits(0, _AIR * high or 1)
        ticked.set_major_locator(MaxNLocator(5, integer=True))
    ticked.set_major_formatter(FuncFormatter(lambda value, _: axis.words(value)))


def _round(value: float, *, down: bool = False) -> float:
    """The nearest of 1, 2, 5, 10, 20, 50, … that is not below a value, or not above it."""
    power = 10.0 ** floor(log10(value))
    steps = [step * power for step in (1, 2, 5, 10)]
    return max(step for step in steps if step <= value) if down else min(step for step in steps if step >= value)
