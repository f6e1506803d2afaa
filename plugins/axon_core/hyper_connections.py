"""Hyper-connections: several residual streams, and learned gates between them and the branches of layers."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.specs.hyper_connections import HyperConnectionsOptions

__all__ = ["AllStreams", "HyperConnection", "HyperConnections", "State"]

#: The streams (B, L, N, D), and the gates (B, L, N) by which the next branch reads them, where they are known before.
State = tuple[mx.array, mx.array | None]


class HyperConnection(nn.Module):
    r"""The gates around one branch (Hugging Face's `DeepseekV4HyperConnection`).

    The streams S of a token, side by side and normalised, give gates :math:`a` of the branch's input, gates :math:`b`
    of its output, and a matrix :math:`M` that mixes the streams: with the branch f, the streams become

    .. math::
        S_j \leftarrow b_j\, f\Big(\sum_i a_i S_i\Big) + \sum_i M_{ij} S_i

    M is brought to rows and columns that sum to one by the iterations of Sinkhorn and Knopp. Without mixing it is the
    identity (`HYV4HyperConnection`). All of it is computed in float32.

    Args:
        hidden_size: Width D of a stream.
        options: `HyperConnectionsOptions`.
    """

    def __init__(self, hidden_size: int, options: HyperConnectionsOptions) -> None:
        super().__init__()
        streams = options.streams
        self.options = options
        self.mixed = options.mixing == "sinkhorn"
        outputs = 2 * streams + (streams**2 if self.mixed else 0)
        self.fn, self.base, self.scale = _gate_weights(outputs, streams * hidden_size, 3 if self.mixed else 2)

    @classmethod
    def from_options(cls, options: HyperConnectionsOptions, dims: Dims) -> HyperConnection:
        """Build from `HyperConnectionsOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def read(self, state: State) -> tuple[mx.array, tuple[mx.array, ...]]:
        """What the branch reads, (B, L, D), and what `write` needs."""
        streams, given = state
        n = self.options.streams
        raw = _gates(streams, self.fn, self.options.norm_eps)
        reading = mx.sigmoid(raw[..., :n] * self.scale[0] + self.base[:n]) + self.options.eps
        writing = mx.sigmoid(raw[..., n : 2 * n] * self.scale[1] + self.base[n : 2 * n])
        writing = self.options.output_scale * writing + self.options.output_eps
        held: tuple[mx.array, ...] = (streams, reading, writing)
        if self.mixed:
            logits = raw[..., 2 * n :] * self.scale[2] + self.base[2 * n :]
            held = (*held, self._mixing(logits.reshape(*logits.shape[:-1], n, n)))
        return _summed(streams, reading if given is None else given), held

    def write(self, held: tuple[mx.array, ...], y: mx.array) -> State:
        """The streams after a branch that gave `y` (B, L, D)."""
        streams, reading, writing, *mixing = held
        added = writing.astype(y.dtype)[..., None] * y[..., None, :]
        if mixing:
            streams = mixing[0].astype(streams.dtype).swapaxes(-1, -2) @ streams
        return added + streams, reading if self.options.gates == "previous" else None

    def _mixing(self, logits: mx.array) -> mx.array:
        """(B, L, N, N) with rows and columns that sum to one."""
        eps = self.options.eps
        matrix = mx.softmax(logits, axis=-1) + eps
        matrix = matrix / (matrix.sum(axis=-2, keepdims=True) + eps)
        for _ in range(self.options.iterations - 1):
            matrix = matrix / (matrix.sum(axis=-1, keepdims=True) + eps)
            matrix = matrix / (matrix.sum(axis=-2, keepdims=True) + eps)
        return matrix


class AllStreams(nn.Module):
    """Around a branch that reads all streams side by side, and gives something to add to each of them."""

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> AllStreams:
        """Build from the options of a scheme with such streams."""
        return cls()

    def read(self, state: State) -> tuple[mx.array, State]:
        """What the branch reads, (B, L, N D), and the state."""
        return state[0].flatten(-2), state

    def write(self, state: State, y: mx.array) -> State:
        """The state with what the branch gave, `y` (B, L, N D)."""
        streams, given = state
        return streams + y.reshape(streams.shape), given


class HyperConnections(nn.Module):
    """Both ends of the streams: copies of the embedding, and their sum by gates, or their mean, for the final norm.

    (Hugging Face's `DeepseekV4HyperHead`, and `Glm5NextTextHyperHead` for the mean.)

    Args:
        hidden_size: Width D of a stream.
        options: `HyperConnectionsOptions`.
    """

    def __init__(self, hidden_size: int, options: HyperConnectionsOptions) -> None:
        super().__init__()
        self.options = options
        if options.end == "gated" and options.gates == "own":
            self.fn, self.base, self.scale = _gate_weights(options.streams, options.streams * hidden_size, 1)

    @classmethod
    def from_options(cls, options: HyperConnectionsOptions, dims: Dims) -> HyperConnections:
        """Build from `HyperConnectionsOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def expand(self, h: mx.array) -> State:
        """Streams that each begin as `h` (B, L, D)."""
        n = self.options.streams
        streams = mx.broadcast_to(h[..., None, :], (*h.shape[:-1], n, h.shape[-1]))
        if self.options.gates == "own":
            return streams, None
        first = mx.broadcast_to((mx.arange(n) == 0).astype(mx.float32), (*h.shape[:-1], n))
        return streams, first

    def collapse(self, state: State) -> mx.array:
        """(B, L, D) of the streams."""
        streams, given = state
        if self.options.end == "mean":
            return streams.mean(axis=-2)
        if given is None:
            raw = _gates(streams, self.fn, self.options.norm_eps)
            given = mx.sigmoid(raw * self.scale + self.base) + self.options.eps
        return _summed(streams, given)


def _gate_weights(outputs: int, inputs: int, scales: int) -> tuple[Any, Any, Any]:
    return mx.random.normal((outputs, inputs)) * inputs**-0.5, mx.zeros((outputs,)), mx.ones((scales,))


def _gates(streams: mx.array, fn: mx.array, eps: float) -> mx.array:
    """Outputs of a matrix for all streams of a token side by side, normalised."""
    flat = streams.reshape(*streams.shape[:-2], -1).astype(mx.float32)
    return mx.fast.rms_norm(flat, None, eps) @ fn.T


def _summed(streams: mx.array, gates: mx.array) -> mx.array:
    """(B, L, D), the sum of (B, L, N, D) by (B, L, N)."""
    return (gates[..., None] * streams.astype(mx.float32)).sum(axis=-2).astype(streams.dtype)
