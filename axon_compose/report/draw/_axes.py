"""Axes of a chart: powers where numbers allow it, ticks at round numbers as far as their words have room."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from math import ceil, floor, log, log10
from typing import TYPE_CHECKING, Final

from axon_compose.report.draw._words import width as width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Axis", "Span", "brief", "lay_out", "ticks"]

#: How far a limit is from a value at least, as a factor.
_AIR: Final = 1.1
#: Pixels above the axes, for the label of the one that runs upwards, and below, for words and label of the other.
_TOP: Final = 32.0
_BOTTOM: Final = 42.0
#: Size of words, between words and axes, and from word to word.
_SIZE: Final = 11.0
_GAP: Final = 8.0
_LINE: Final = 22.0


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: What is counted.
        words: A number of it, as a tick says it.
        base: Ticks stand at powers of it; at 2 and 5 times those of 10 too where there is room.
        top: Where equal steps from 0 end, as of a share; None where the numbers decide.
    """

    label: str
    words: Callable[[float], str]
    base: int = 10
    top: float | None = None

    def span(self, values: Collection[float], *, tight: bool = False) -> Span:
        """From where to where it runs for some values, see `Span.of`."""
        return Span.of(values, tight=tight) if self.top is None else Span(0, self.top, False)


@dataclass(frozen=True)
class Span:
    """From where to where an axis runs.

    Attributes:
        low: The first number.
        high: The last one, above it.
        powers: Whether equal steps are equal factors.
    """

    low: float
    high: float
    powers: bool

    @classmethod
    def of(cls, values: Collection[float], *, tight: bool = False) -> Span:
        """The span that holds some values, at least one and none below 0.

        A 0 has no place among powers: steps are equal then. Otherwise the span reaches to the next round numbers, or,
        if it shall be tight, from the lowest to the highest value.
        """
        low, high = min(values), max(values)
        if low <= 0:
            return cls(0, high * _AIR or 1, False)
        if not tight:
            return cls(_round(low / _AIR, down=True), _round(high * _AIR), True)
        return cls(low, high, True) if low < high else cls(low / 2, high * 2, True)

    def place(self, value: float) -> float:
        """How far along the axis a value stands, from 0 to 1."""
        if self.powers:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def brief(words: Callable[[int], str]) -> Callable[[float], str]:
    """A way to say whole numbers, without zeros at the end: `2 GB` for `2.00 GB`."""
    return lambda number: re.sub(r"\.0+(?!\d)|(\.\d*[1-9])0+(?!\d)", r"\1", words(round(number)))


def ticks(span: Span, base: int, room: float, size: Callable[[float], float]) -> list[float]:
    """As many round numbers as have room.

    Args:
        span: Where they stand.
        base: Of the powers.
        room: Pixels from end to end.
        size: Pixels that the words of a number need.
    """
    choices = _powers(span, base) if span.powers else _steps(span)
    return next(
        found
        for found in choices
        if all(
            room * (span.place(after) - span.place(before)) >= (size(before) + size(after)) / 2
            for before, after in pairwise(found)
        )
    )


def _powers(span: Span, base: int) -> Iterator[list[float]]:
    """Ever fewer numbers: 1, 2 and 5 times powers of ten; powers; every second, every third one and so on."""
    first, last = ceil(log(span.low, base) - 1e-9), floor(log(span.high, base) + 1e-9)
    if base == 10:
        every = (step * 10.0**power for power in range(first - 1, last + 1) for step in (1, 2, 5))
        yield [value for value in every if span.low * (1 - 1e-9) <= value <= span.high * (1 + 1e-9)]
    for step in count(1):
        yield [float(base) ** power for power in range(first, last + 1, step)]


def _steps(span: Span) -> Iterator[list[float]]:
    from matplotlib.ticker import MaxNLocator

    for most in (5, 4, 3, 2, 1):
        found = MaxNLocator(most, integer=True).tick_values(span.low, span.high)
        yield [value for value in map(float, found) if span.low <= value <= span.high]
    yield [span.low]


def lay_out(
    axes: Axes, across: tuple[Axis, Span], up: tuple[Axis, Span], width: float, height: float, beside: float = 0
) -> None:
    """Limits, ticks and labels of both axes, and the place of the axes in the chart.

    Widths of words are guessed as everywhere in pictures: a font of the reader is not known when a chart is drawn.
    The upward axis has its label above, where one reads it without turning the head. To the right of the axes are
    `beside` pixels at least.
    """
    (axis, span), (upward, rise) = across, up
    tall = height - _TOP - _BOTTOM
    heights = ticks(rise, upward.base, tall, lambda _: _LINE)
    left = _GAP + max(_wide(upward, value) for value in heights)
    right = max(_GAP + _wide(axis, span.high) / 2, beside)
    wide = width - left - right
    places = ticks(span, axis.base, wide, lambda value: _wide(axis, value) + _GAP)
    axes.set_position((left / width, _BOTTOM / height, wide / width, tall / height))
    for side, chosen, marks, formatter in ((axes.xaxis, span, places, axis), (axes.yaxis, rise, heights, upward)):
        side.axes.set(**{f"{side.axis_name}scale": "log" if chosen.powers else "linear"})
        side.set_ticks(marks, [formatter.words(mark) for mark in marks])
        side.set_ticks([], minor=True)
    axes.set(xlim=(span.low, span.high), ylim=(rise.low, rise.high), xlabel=axis.label)
    axes.set_title(upward.label, x=-left / wide + _GAP / wide)


def _wide(axis: Axis, value: float) -> float:
    return width_of(axis.words(value), _SIZE)


def _round(value: float, *, down: bool = False) -> float:
    """The nearest of 1, 2, 5, 10, 20, 50, … that is not below a value, or not above it."""
    power = 10.0 ** floor(log10(value))
    steps = [step * power for step in (1, 2, 5, 10)]
    return max(step for step in steps if step <= value) if down else min(step for step in steps if step >= value)
