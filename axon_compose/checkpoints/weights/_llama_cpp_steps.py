"""Steps for what llama.cpp changes when it converts a checkpoint: the order of rows and heads, the form of decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axon_compose.checkpoints.weights._steps import Shape, StepError, cut, join, library

__all__ = ["NegativeExp", "PairsToHalves", "TilesToGroups"]


@dataclass(frozen=True, slots=True)
class PairsToHalves:
    """Rows of each head from rotary pairs, x0 y0 x1 y1, to halves, x0 x1 y0 y1.

    llama.cpp rotates neighbours, transformers the two halves of a head, and the rows of queries and keys are stored in
    the order of the one or the other.
    """

    heads: int

    def shape(self, shape: Shape) -> Shape:
        """Unchanged.

        Raises:
            StepError: The rows are not an even number for each head.
        """
        if not shape or shape[0] % (2 * self.heads):
            raise StepError(f"the rows of {list(shape)} are not pairs in {self.heads} heads")
        return shape

    def apply(self, array: Any) -> Any:
        """Pairs to halves."""
        return self._swapped(array, (array.shape[0] // (2 * self.heads), 2))

    def undo(self, array: Any) -> Any:
        """Halves to pairs."""
        return self._swapped(array, (2, array.shape[0] // (2 * self.heads)))

    def _swapped(self, array: Any, parts: tuple[int, int]) -> Any:
        rows, *rest = array.shape
        order = (0, 2, 1, *range(3, 3 + len(rest)))
        return array.reshape((self.heads, *parts, *rest)).transpose(order).reshape((rows, *rest))


@dataclass(frozen=True, slots=True)
class TilesToGroups:
    """The last heads of an axis from tiles, a0 b0 a1 b1, to groups, a0 a1 b0 b1.

    Where several value heads share a key head, those of one key head lie together in transformers. llama.cpp repeats
    all key heads in a row, and so takes one value head of each key head after the other.

    Attributes:
        repeats: Heads of each group.
        groups: Groups.
        size: Length of a head.
        axis: The axis; what comes before the heads stays.
    """

    repeats: int
    groups: int
    size: int
    axis: int = 0

    def shape(self, shape: Shape) -> Shape:
        """Unchanged.

        Raises:
            StepError: The axis has no room for the heads.
        """
        heads = self.repeats * self.groups
        if self.axis >= len(shape) or shape[self.axis] < heads * self.size:
            raise StepError(f"axis {self.axis} of {list(shape)} does not end with {heads} heads of {self.size}")
        return shape

    def apply(self, array: Any) -> Any:
        """Tiles to groups."""
        return self._swapped(array, self.repeats, self.groups)

    def undo(self, array: Any) -> Any:
        """Groups to tiles."""
        return self._swapped(array, self.groups, self.repeats)

    def _swapped(self, array: Any, outer: int, inner: int) -> Any:
        if before := array.shape[self.axis] - outer * inner * self.size:
            first, last = cut(array, self.axis, [before, outer * inner * self.size])
            return join([first, self._swapped(last, outer, inner)], self.axis)

        def change(part: Any, size: int) -> Any:
            left, right = part.shape[: self.axis], part.shape[self.axis + 1 :]
            at = self.axis
            order = (*range(at), at + 1, at, *range(at + 2, len(part.shape) + 2))
            return part.reshape((*left, outer, inner, size, *right)).transpose(order).reshape(part.shape)

        if hasattr(array, "in_blocks") and self.axis == len(array.shape) - 1:
            return array.in_blocks(self.size, change)
        return change(array, self.size)


@dataclass(frozen=True, slots=True)
class NegativeExp:
    """From -exp(x), as llama.cpp stores the decays of state-space layers, to x."""

    def shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def apply(self, array: Any) -> Any:
        """log(-array)."""
        return library(array).log(-array)

    def undo(self, array: Any) -> Any:
        """-exp(array)."""
        return -library(array).exp(array)
