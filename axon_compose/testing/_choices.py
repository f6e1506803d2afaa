"""Where the choices of a generator come from: a seed, or a test library that makes failures small."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Choices", "Seeded"]

T = TypeVar("T")


class Choices(Protocol):
    """Makes every choice of a generator. The first of the values is the simplest: failures are shrunk towards it."""

    def choose(self, values: Sequence[T]) -> T:
        """One of the values, of which there is at least one."""


class Seeded:
    """Choices out of a seed: the same ones on every machine.

    Args:
        seed: Any whole number.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing is kept secret by it

    def choose(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self._random.randrange(len(values))]
