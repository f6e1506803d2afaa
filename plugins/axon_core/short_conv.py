"""Short convolution between two gates, the mixer of LFM2 (Liquid AI, 2025)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.conv import causal_conv, draw_taps
from axon_core.linear import Linear
from axon_core.specs.short_conv import ShortConvOptions
from axon_core.states import read_states, write_states

__all__ = ["ShortConv"]


class ShortConv(nn.Module):
    """Causal depthwise convolution of a few tokens, gated before and after by the input itself.

        B, C, x = in_proj(u)
        y       = out_proj(C * conv(B * x))

    There is no nonlinearity but the two products. Parameters are named and laid out as in mlx-lm's `lfm2.ShortConv`.

    Args:
        hidden_size: Width D of input and output.
        d_conv: Tokens that the convolution sees, the current one included.
        bias: Biases of the projections and of the convolution.
        intermediate_size: Number E of channels; as many as the input has unless given.
    """

    def __init__(
        self, hidden_size: int, d_conv: int = 3, bias: bool = False, intermediate_size: int | None = None
    ) -> None:
        super().__init__()
        channels = intermediate_size or hidden_size
        self.in_proj = Linear(hidden_size, 3 * channels, bias=bias)
        self.conv = nn.Conv1d(channels, channels, d_conv, groups=channels, bias=bias)
        self.out_proj = Linear(channels, hidden_size, bias=bias)
        draw_taps(self.conv)

    @classmethod
    def from_options(cls, options: ShortConvOptions, dims: Dims) -> ShortConv:
        """Build from `ShortConvOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, **dict(options))

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(1)`, which is updated, or a list of the one array, which is not.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last `d_conv - 1` inputs of the convolution,
            (B, d_conv - 1, E). Without a cache, a new list.
        """
        length = x.shape[1]
        (state,), mask = read_states(cache, mask, length, count=1)
        before, after, x = mx.split(self["in_proj"](x), 3, axis=-1)
        y, state = causal_conv(self["conv"], before * x, mask, state)
        y = self["out_proj"](after * y.astype(x.dtype))
        return y, write_states(cache, [state], length)
