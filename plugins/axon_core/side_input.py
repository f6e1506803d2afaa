"""One residual stream, and beside it what a layer to the side gives, which the next branch alone reads (Zamba2)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.specs.side_input import SideInputOptions

__all__ = ["Add", "Beside", "Side", "SideInput"]

#: The stream (B, L, D), and perhaps what was computed beside it.
State = tuple[mx.array, ...]


class Add(nn.Module):
    """Around a branch: it reads the stream and is added to it."""

    @classmethod
    def from_options(cls, options: SideInputOptions, dims: Dims) -> Add:
        """Build from `SideInputOptions`."""
        return cls()

    def read(self, state: State) -> tuple[mx.array, State]:
        """What the branch reads, (B, L, D), and the state."""
        return state[0], state

    def write(self, state: State, y: mx.array) -> State:
        """The state with what the branch gave, `y` (B, L, D)."""
        return (state[0] + y, *state[1:])


class Side(Add):
    """Around a branch to the side: it reads the stream, which stays, and what it gives is kept."""

    def write(self, state: State, y: mx.array) -> State:
        """The stream and what the branch gave, `y` (B, L, D)."""
        return state[0], y


class Beside(Add):
    """Around the branch after it: it reads the sum of both and is added to the stream."""

    def read(self, state: State) -> tuple[mx.array, State]:
        """What the branch reads, (B, L, D), and the stream."""
        stream, kept = state
        return stream + kept, (stream,)


class SideInput(nn.Module):
    """Both ends: the stream is what comes in and goes out."""

    @classmethod
    def from_options(cls, options: SideInputOptions, dims: Dims) -> SideInput:
        """Build from `SideInputOptions`."""
        return cls()

    def expand(self, h: mx.array) -> State:
        """The state before the first layer, of the embedding (B, L, D)."""
        return (h,)

    def collapse(self, state: State) -> mx.array:
        """(B, L, D) for the final norm."""
        return state[0]
