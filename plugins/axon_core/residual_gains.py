"""One residual stream with learned factors: of its branches (Talkie), or of the stream and a branch (Muse Spark)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.specs.residual_gains import EmbeddingSkipOptions, ResidualGatesOptions

__all__ = ["EmbeddingSkip", "Gain", "ResidualGate", "ResidualGates", "SkipGain"]

#: The stream (B, L, D), and the embedding that is added to it again and again.
Skipped = tuple[mx.array, mx.array]
#: The stream (B, L, D) in float32, and an empty array in the type of the branches.
Wide = tuple[mx.array, mx.array]


class Gain(nn.Module):
    """Around a branch: `x + gain * f(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = mx.ones((1,))

    @classmethod
    def from_options(cls, options: EmbeddingSkipOptions, dims: Dims) -> Gain:
        """Build from `EmbeddingSkipOptions`."""
        return cls()

    def read(self, state: Skipped) -> tuple[mx.array, Skipped]:
        """What the branch reads, and the state."""
        return state[0], state

    def write(self, state: Skipped, y: mx.array) -> Skipped:
        """The state with what the branch gave, `y` (B, L, D)."""
        x, embedding = state
        return x + self.gain.astype(x.dtype) * y, embedding


class SkipGain(Gain):
    """Around the last branch of a layer: `x + gain * f(x) + skip * e` with the embedding e."""

    def __init__(self) -> None:
        super().__init__()
        self.skip = mx.zeros((1,))

    def write(self, state: Skipped, y: mx.array) -> Skipped:
        """The state with what the branch gave, `y` (B, L, D)."""
        x, embedding = super().write(state, y)
        return x + self.skip.astype(x.dtype) * embedding, embedding


class EmbeddingSkip(nn.Module):
    """Both ends: the stream begins as the embedding, which stays beside it."""

    @classmethod
    def from_options(cls, options: EmbeddingSkipOptions, dims: Dims) -> EmbeddingSkip:
        """Build from `EmbeddingSkipOptions`."""
        return cls()

    def expand(self, h: mx.array) -> Skipped:
        """The state before the first layer, of the embedding (B, L, D)."""
        return h, h

    def collapse(self, state: Skipped) -> mx.array:
        """(B, L, D) for the final norm."""
        return state[0]


class ResidualGate(nn.Module):
    r"""Around a branch: a share of it and what complements that of the stream, for each dimension.

    .. math::
        x \leftarrow \sqrt{\max\big(\sigma(-w)\,(1 + \sigma(w)),\, \epsilon\big)}\; x + \sigma(w)\, f(x),
        \qquad w = \mathrm{gate} / T

    The squares of both factors sum to one. (Hugging Face's `MuseSparkResidualGate`.)

    Args:
        hidden_size: Width D of the stream.
        options: `ResidualGatesOptions`.
    """

    def __init__(self, hidden_size: int, options: ResidualGatesOptions) -> None:
        super().__init__()
        self.temperature, self.eps = options.temperature, options.eps
        self.gate = mx.zeros((hidden_size,))

    @classmethod
    def from_options(cls, options: ResidualGatesOptions, dims: Dims) -> ResidualGate:
        """Build from `ResidualGatesOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def read(self, state: Wide) -> tuple[mx.array, Wide]:
        """What the branch reads, in its type, and the state."""
        stream, typed = state
        return stream.astype(typed.dtype), state

    def write(self, state: Wide, y: mx.array) -> Wide:
        """The state with what the branch gave, `y` (B, L, D)."""
        stream, typed = state
        w = self.gate.astype(mx.float32) / self.temperature
        share = mx.sigmoid(w)
        kept = mx.sqrt(mx.maximum(mx.sigmoid(-w) * (1 + share), self.eps))
        return kept * stream + share * y.astype(mx.float32), typed


class ResidualGates(nn.Module):
    """Both ends: the stream is kept in float32, whatever the type of the branches."""

    @classmethod
    def from_options(cls, options: ResidualGatesOptions, dims: Dims) -> ResidualGates:
        """Build from `ResidualGatesOptions`."""
        return cls()

    def expand(self, h: mx.array) -> Wide:
        """The state before the first layer, of the embedding (B, L, D)."""
        return h.astype(mx.float32), mx.zeros((0,), dtype=h.dtype)

    def collapse(self, state: Wide) -> mx.array:
        """(B, L, D) for the final norm."""
        stream, typed = state
        return stream.astype(typed.dtype)
