"""Alternating updates: several residual streams, one of which passes through the layers (Gemma 3n)."""

from __future__ import annotations

from typing import Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.specs.altup import AltUpOptions

__all__ = ["AltUp", "AltUpLayer", "AltUpOthers"]

#: Least mean square of a stream that is brought to the length of another one.
_LEAST: Final = 1e-5


class AltUp(nn.Module):
    """Both ends of the streams (Hugging Face's `Gemma3nTextModel`).

    The first stream is the embedding; the others are projections of it, of its length. At the end they are projected
    again, brought to the length of the first one, and averaged with it.

    Args:
        hidden_size: Width D of a stream.
        options: `AltUpOptions`.
    """

    def __init__(self, hidden_size: int, options: AltUpOptions) -> None:
        super().__init__()
        self.others = range(options.streams - 1)
        for place in ("in", "out"):
            for number in self.others:
                self[f"{place}_proj_{number}"] = Linear(hidden_size, hidden_size, bias=False)

    @classmethod
    def from_options(cls, options: AltUpOptions, dims: Dims) -> AltUp:
        """Build from `AltUpOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def expand(self, h: mx.array) -> mx.array:
        """Streams (B, L, N, D) of `h` (B, L, D)."""
        length = _length(h)
        others = (_of_length(self[f"in_proj_{number}"](h), length) for number in self.others)
        return mx.stack([h, *others], axis=-2)

    def collapse(self, streams: mx.array) -> mx.array:
        """(B, L, D) of the streams (B, L, N, D)."""
        first = streams[..., 0, :]
        length = _length(first)
        others = (_of_length(self[f"out_proj_{number}"](streams[..., number + 1, :]), length) for number in self.others)
        return mx.stack([first, *others], axis=-2).mean(axis=-2)


class AltUpLayer(nn.Module):
    r"""Prediction and correction around the branches of a layer (Hugging Face's `Gemma3nTextAltUp`).

    A router reads the active stream; P and c are linear in its outputs. With the layer's branches f and the active
    stream a,

    .. math::
        \hat S_j = S_j + \sum_i P_{ji}(S_a)\, S_i, \qquad y = f(\hat S_a), \qquad
        S_j \leftarrow \hat S_j + (1 + c_j(y))\, (y - \hat S_a)

    Args:
        hidden_size: Width D of a stream.
        options: `AltUpOptions`.
    """

    def __init__(self, hidden_size: int, options: AltUpOptions) -> None:
        super().__init__()
        self.streams, self.active = options.streams, options.active
        self.router_norm = RMSNorm(hidden_size, options.norm_eps)
        self.router = Linear(hidden_size, options.streams, bias=False)
        self.predict = Linear(options.streams, options.streams**2, bias=False)
        self.correct = Linear(options.streams, options.streams, bias=False)

    @classmethod
    def from_options(cls, options: AltUpOptions, dims: Dims) -> AltUpLayer:
        """Build from `AltUpOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def read(self, streams: mx.array) -> tuple[mx.array, mx.array]:
        """The active stream, (B, L, D), as it is predicted, and all of them, (B, L, N, D)."""
        coefficients = self.predict(self._routed(streams[..., self.active, :]))
        matrix = coefficients.reshape(*coefficients.shape[:-1], self.streams, self.streams)
        predicted = streams + (matrix @ streams.astype(matrix.dtype)).astype(streams.dtype)
        return predicted[..., self.active, :], predicted

    def write(self, predicted: mx.array, y: mx.array) -> mx.array:
        """Streams, (B, L, N, D), corrected by the active one as the layer gives it, `y` (B, L, D)."""
        factors = (self.correct(self._routed(y)) + 1.0).astype(y.dtype)
        innovation = y - predicted[..., self.active, :]
        return predicted + factors[..., None] * innovation[..., None, :]

    def _routed(self, x: mx.array) -> mx.array:
        """(B, L, N) of `x` (B, L, D)."""
        routed = self.router(self.router_norm(x) * x.shape[-1] ** -1.0)
        return mx.tanh(routed.astype(mx.float32)).astype(x.dtype)


class AltUpOthers(nn.Module):
    """A branch that reads the active stream, each dimension by a learned factor, and is added to all but the first one.

    (The per-layer input in Hugging Face's `Gemma3nTextDecoderLayer`.)

    Args:
        hidden_size: Width D of a stream.
        options: `AltUpOptions`.
    """

    def __init__(self, hidden_size: int, options: AltUpOptions) -> None:
        super().__init__()
        self.streams, self.active = options.streams, options.active
        if options.correct_scale:
            self.scale = mx.ones((hidden_size,))

    @classmethod
    def from_options(cls, options: AltUpOptions, dims: Dims) -> AltUpOthers:
        """Build from `AltUpOptions`; streams are as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def read(self, streams: mx.array) -> tuple[mx.array, mx.array]:
        """What the branch reads, (B, L, D), and the streams (B, L, N, D)."""
        active = streams[..., self.active, :]
        return active * self.scale if "scale" in self else active, streams

    def write(self, streams: mx.array, y: mx.array) -> mx.array:
        """Streams, (B, L, N, D), with the branch's output `y` (B, L, D)."""
        others = (mx.arange(self.streams) > 0).astype(y.dtype)
        return streams + others[:, None] * y[..., None, :]


def _square(x: mx.array) -> mx.array:
    """The mean square over the last axis, which stays; in float32, for the square of 256 is no float16."""
    return x.astype(mx.float32).square().mean(axis=-1, keepdims=True)


def _length(x: mx.array) -> mx.array:
    """The root mean square of the last axis, which stays."""
    return mx.sqrt(_square(x))


def _of_length(x: mx.array, length: mx.array) -> mx.array:
    return (x * length / mx.sqrt(mx.maximum(_square(x), _LEAST))).astype(x.dtype)
