"""Steps for what llama.cpp changes when it converts a checkpoint: the order of rotary rows, and the form of decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axon_compose.checkpoints.weights._steps import Shape, StepError, library

__all__ = ["NegativeExp", "PairsToHalves"]


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
