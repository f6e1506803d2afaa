"""Several residual streams whose every dimension is gated before a branch reads it (Qwen, 2026, Qwen4)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.elementary import sigmoid, silu
from axon_core.hyper_connections import State
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.specs.gated_streams import GatedStreamsOptions

__all__ = ["GatedStreams", "StreamGates"]


class Mean(nn.Module):
    r"""The mean of N streams, each normalised by itself and gated.

    .. math::
        z = \mathrm{norm}(S), \qquad
        x = \tfrac1N \sum_j \big(\sigma(W_{\mathrm{up}}\, \mathrm{silu}(W_{\mathrm{down}}\, z / N)) \odot z\big)_j

    with all streams side by side in z. (Hugging Face's `Qwen4ExpTextGatedResidual`.)

    Args:
        hidden_size: Width D of a stream.
        options: `GatedStreamsOptions`.
    """

    def __init__(self, hidden_size: int, options: GatedStreamsOptions) -> None:
        super().__init__()
        self.streams = options.streams
        wide = options.streams * hidden_size
        self.norm = RMSNorm(wide, options.norm_eps, num_groups=options.streams, offset=options.norm_offset)
        self.down_proj = Linear(wide, options.rank, bias=False)
        self.up_proj = Linear(options.rank, wide, bias=False)

    def read_all(self, streams: mx.array) -> tuple[mx.array, mx.array]:
        """What comes of (B, L, N, D): x (B, L, D), and z (B, L, N D)."""
        z = self.norm(streams.flatten(-2))
        gates = sigmoid(self.up_proj(silu(self.down_proj(z) / self.streams)))
        return (gates * z).reshape(streams.shape).mean(axis=-2), z


class StreamGates(Mean):
    r"""Around a branch, which reads that mean, and whose output each stream takes by a gate of its own.

    .. math::
        S_j \leftarrow S_j + 2\,\sigma(W_{\mathrm{inject}}\, z / N)_j\; f(x)
    """

    def __init__(self, hidden_size: int, options: GatedStreamsOptions) -> None:
        super().__init__(hidden_size, options)
        self.inject_proj = Linear(options.streams * hidden_size, options.streams, bias=False)

    @classmethod
    def from_options(cls, options: GatedStreamsOptions, dims: Dims) -> StreamGates:
        """Build from `GatedStreamsOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def read(self, state: State) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """What the branch reads, (B, L, D), and what `write` needs."""
        streams, _ = state
        x, z = self.read_all(streams)
        return x, (streams, 2 * sigmoid(self.inject_proj(z) / self.streams))

    def write(self, held: tuple[mx.array, mx.array], y: mx.array) -> State:
        """The streams after a branch that gave `y` (B, L, D)."""
        streams, writing = held
        return streams + writing[..., None] * y[..., None, :], None


class GatedStreams(Mean):
    """Both ends of the streams: copies of the embedding, and their gated mean, which is normalised already."""

    @classmethod
    def from_options(cls, options: GatedStreamsOptions, dims: Dims) -> GatedStreams:
        """Build from `GatedStreamsOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def expand(self, h: mx.array) -> State:
        """Streams that each begin as `h` (B, L, D)."""
        return mx.broadcast_to(h[..., None, :], (*h.shape[:-1], self.streams, h.shape[-1])), None

    def collapse(self, state: State) -> mx.array:
        """(B, L, D) of the streams."""
        return self.read_all(state[0])[0]
