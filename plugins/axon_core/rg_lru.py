"""Griffin's recurrent block (De et al. 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention")."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.activations import ACTIVATIONS
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import sigmoid
from axon_core.linear import Linear
from axon_core.linear_scan import linear_scan
from axon_core.specs.rg_lru import RGLRUOptions
from axon_core.states import read_states, write_states

__all__ = ["RGLRU", "GriffinRecurrent"]

#: The paper's c: how many times softplus(recurrent_param) the logarithm of a decay may be.
_SHARPNESS: Final = 8.0
#: The least normal float32.
_LEAST: Final = 2.0**-126
#: A new channel forgets all but the square root of a number between these in each token with an open gate.
_SQUARED_DECAYS: Final = (0.9**2, 0.999**2)


class GriffinRecurrent(nn.Module):
    """Griffin's recurrent block, the mixer of RecurrentGemma.

        y = linear_out(rg_lru(conv_1d(linear_x(x))) * gelu_tanh(linear_y(x)))

    The convolution and the recurrence are computed in float32, products in the type of the input. Parameters are
    named and laid out as in mlx-lm's `RecurrentBlock`, which ignores padding. The cache has one entry more: where a
    sequence begins decides what its first token is weighed with, and in a padded batch that may be in any call.

    Args:
        options: `RGLRUOptions`.
        hidden_size: Width D of input and output.
    """

    def __init__(self, options: RGLRUOptions, hidden_size: int) -> None:
        super().__init__()
        channels = options.channels(hidden_size)
        self.linear_x, self.linear_y = Linear(hidden_size, channels), Linear(hidden_size, channels)
        self.linear_out = Linear(channels, hidden_size)
        self.conv_1d = nn.Conv1d(channels, channels, options.d_conv, groups=channels)
        draw_taps(self.conv_1d)
        self.rg_lru = RGLRU(channels, options.num_heads)

    @classmethod
    def from_options(cls, options: RGLRUOptions, dims: Dims) -> GriffinRecurrent:
        """Build from `RGLRUOptions`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(3)`, which is updated, or a list of the three arrays, which is not.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last `d_conv - 1` inputs of the convolution,
            (B, d_conv - 1, E), entry 1 the state, (B, E) in float32, entry 2 how many tokens a row has seen, (B, 1) in
            float32. Without a cache, a new list.
        """
        length = x.shape[1]
        (conv_state, state, seen), mask = read_states(cache, mask, length, count=3)
        y, conv_state = causal_conv(self.conv_1d, self.linear_x(x), mask, conv_state)
        first, seen = _first(x, mask, seen)
        y, state = self.rg_lru(y, first, mask, state)
        y = self.linear_out(y.astype(x.dtype) * ACTIVATIONS["gelu_tanh"](self.linear_y(x)))
        return y, write_states(cache, [conv_state, state, seen], length)


class RGLRU(nn.Module):
    """The real-gated linear recurrent unit, a diagonal recurrence in float32.

        r_t = sigmoid(W_r x_t + b_r),  i_t = sigmoid(W_i x_t + b_i)       W_r, W_i: a block for every head
        a_t = exp(-8 r_t softplus(recurrent_param))
        h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t x_t

    The root keeps the size of the state independent of the decay. The first token of a sequence has nothing to be
    weighed against: it comes in whole.

    Args:
        channels: Number of channels, E.
        heads: Equal parts of the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.num_heads, width = heads, channels // heads
        for gate in ("input", "recurrent"):
            self[f"{gate}_gate_weight"] = mx.random.normal((heads, width, width), scale=width**-0.5)
            self[f"{gate}_gate_bias"] = mx.zeros((heads, width))
        # Of decays that are spread evenly over a ring, as in the paper: softplus(p) = -log(a) / 8, solved for p.
        rate = mx.log(mx.random.uniform(*_SQUARED_DECAYS, (channels,))) / (-2 * _SHARPNESS)
        self.recurrent_param = rate + mx.log(-mx.expm1(-rate))

    def __call__(
        self, x: mx.array, first: mx.array, mask: mx.array | None, state: mx.array | None
    ) -> tuple[mx.array, mx.array]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, E) in float32.
            first: Where a sequence begins, (B or 1, L, 1).
            mask: False on padding, (B, L).
            state: State before the first token, (B, E); zeros if None.

        Returns:
            The states (B, L, E) and the last one, (B, E), in float32.
        """
        heads = mx.unflatten(x.astype(self.input_gate_weight.dtype), -1, (self.num_heads, -1)).swapaxes(1, 2)
        let_in, forgets = self._gate("input", heads), self._gate("recurrent", heads)
        log_a = forgets * (-_SHARPNESS * mx.logaddexp(self.recurrent_param.astype(mx.float32), 0.0))
        return linear_scan(_weight(log_a, first) * let_in * x, log_a, state, mask)

    def _gate(self, name: str, heads: mx.array) -> mx.array:
        """(B, H, L, E / H) to (B, L, E) in float32, each head by its own matrix."""
        y = (heads @ self[f"{name}_gate_weight"]).swapaxes(1, 2).flatten(2) + self[f"{name}_gate_bias"].flatten()
        return sigmoid(y.astype(mx.float32))


def _weight(log_a: mx.array, first: mx.array) -> mx.array:
    """`sqrt(1 - a²)`, and 1 where a sequence begins."""
    # Without a difference: a may be as near to 1 as float32 allows.
    square = mx.where(first, 1.0, -mx.expm1(2 * log_a))
    # The root of 0 has an infinite slope, yet what a shut gate lets in changes with its logit by nothing.
    return mx.sqrt(mx.maximum(square, _LEAST))


def _first(x: mx.array, mask: mx.array | None, seen: mx.array | None) -> tuple[mx.array, mx.array]:
    """Where rows begin, (B, L, 1), and how many tokens they have seen after these, (B, 1)."""
    batch, length, _ = x.shape
    real = mx.ones((batch, length)) if mask is None else mask.astype(mx.float32)
    position = mx.cumsum(real, axis=1) + (0.0 if seen is None else seen)
    return ((position == 1) & (real == 1))[..., None], position[:, -1:]
