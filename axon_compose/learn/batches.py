"""What a step learns from: tokens in, tokens that shall come out, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import mlx.core as mx

__all__ = ["LEFT_OUT", "Batch", "Batches"]

#: A target that does not count, as everywhere in the field: padding, or what no answer is asked for.
LEFT_OUT: Final = -100


class Batch(NamedTuple):
    """Sequences of equal length.

    Attributes:
        tokens: (B, L) int32, what the model reads.
        targets: (B, L) int32, what it shall say after each of them; `LEFT_OUT` where nothing is asked.
    """

    tokens: mx.array
    targets: mx.array


@runtime_checkable
class Batches(Protocol):
    """Endless data in an order that is a function of a seed and the number of the step alone.

    So nothing of it has to be kept to continue a run, and all models of a race see the same.

    Attributes:
        tokens_of_step: B times L.
    """

    @property
    def tokens_of_step(self) -> int:
        """B times L of every batch of `at`."""
        ...

    def at(self, step: int) -> Batch:
        """The batch of a step, from 0; of the same shape for all."""
        ...

    def held_out(self) -> Iterable[Batch]:
        """Batches that no step learns from, the same each time."""
        ...
