"""Cache bytes over context, both in powers: what grows is a slope, a window bends, a state is level."""

from __future__ import annotations

from math import log2, log10
from typing import Final

from axon_compose.draw._canvas import Canvas
from axon_compose.draw._sums import CacheSum, cache_sums
from axon_compose.draw._words import width as width_of
from axon_compose.memory import human
from axon_compose.plan import Plan, cache_nbytes
from axon_compose.registry import KV

__all__ = ["cache_plot"]

#: Contexts at the left and right edge, as powers of two.
LOW: Final = 8
HIGH: Final = 18
TOP: Final = 16.0
LEFT: Final = 66.0
RIGHT: Final = 18.0

_Point = tuple[float, float]


def cache_plot(plan: Plan, width: float, height: float = 300.0) -> str:
    """A plot of the caches of one sequence in bfloat16; a line for each kind, and one for all where there are several.

    Args:
        plan: The model; it keeps at least one cache.
        width: In pixels.
        height: Of the plot itself, without the names below it.
    """
    return _Plot(plan, width, height).svg()


class _Plot:
    def __init__(self, plan: Plan, width: float, height: float) -> None:
        self.plan, self.width, self.height = plan, width, height
        self.canvas, self.sums = Canvas(), cache_sums(plan)
        values = [part.nbytes(tokens) for part in self.sums for tokens in (2**LOW, 2**HIGH)]
        self.low = int(log10(max(min(values), 1)))
        self.high = max(int(log10(max(cache_nbytes(plan, 2**HIGH), 1))) + 1, self.low + 1)
        self.bottom = height - 42

    def svg(self) -> str:
        self._axes()
        for part in self.sums:
            self._line(part)
        if len(self.sums) > 1:
            points = [self._point(tokens, cache_nbytes(self.plan, tokens)) for tokens in self._contexts()]
            self.canvas.curve(points, "curve total dashed")
        end = self._names()
        label = f"{self.plan.name}: cache bytes over context"
        return self.canvas.svg(self.width, end, label, style=False)

    def _contexts(self) -> list[int]:
        """Where lines have points: every power of two, and where a window is full."""
        leaves = (leaf for part in self.sums for leaf in part.leaves)
        windows = {leaf.window for leaf in leaves if isinstance(leaf, KV) and leaf.window}
        powers = {2**power for power in range(LOW, HIGH + 1)}
        return sorted(powers | {window for window in windows if 2**LOW < window < 2**HIGH})

    def _point(self, tokens: int, nbytes: int) -> _Point:
        x = LEFT + (log2(tokens) - LOW) / (HIGH - LOW) * (self.width - LEFT - RIGHT)
        y = self.bottom - (log10(max(nbytes, 1)) - self.low) / (self.high - self.low) * (self.bottom - TOP)
        return x, y

    def _axes(self) -> None:
        canvas, right = self.canvas, self.width - RIGHT
        for power in range(self.low, self.high + 1):
            _, y = self._point(1, 10**power)
            canvas.line([(LEFT, y), (right, y)], "axis" if power == self.low else "grid")
            canvas.words(LEFT - 8, y + 4, _size(10**power), "small quiet end")
        for power in range(LOW, HIGH + 1, 2):
            x, _ = self._point(2**power, 1)
            canvas.line([(x, self.bottom), (x, self.bottom + 5)], "axis")
            canvas.words(x, self.bottom + 19, _tokens(2**power), "small quiet middle")
        canvas.words((LEFT + right) / 2, self.bottom + 37, "tokens of context", "small quiet middle")

    def _line(self, part: CacheSum) -> None:
        points = [self._point(tokens, part.nbytes(tokens)) for tokens in self._contexts()]
        self.canvas.curve(points, f"curve {part.family}-line")

    def _names(self) -> float:
        """Names of the lines below the plot; returns where they end."""
        names = [(part.label, f"curve {part.family}-line") for part in self.sums]
        if len(names) > 1:
            names.append(("all caches", "curve total dashed"))
        x, y = LEFT, self.height + 16
        for label, class_ in names:
            room = 26 + width_of(label, 11)
            if x > LEFT and x + room > self.width - RIGHT:
                x, y = LEFT, y + 20
            self.canvas.line([(x, y - 4), (x + 18, y - 4)], class_)
            self.canvas.words(x + 26, y, label, "small")
            x += room + 18
        return y + 14


def _size(nbytes: int) -> str:
    """A power of ten in bytes: `100 MB`."""
    number, unit = human(nbytes).split(" ")
    return f"{float(number):g} {unit}"


def _tokens(tokens: int) -> str:
    """A power of two as people say it: `256`, `64k`."""
    return str(tokens) if tokens < 1024 else f"{tokens // 1024}k"
