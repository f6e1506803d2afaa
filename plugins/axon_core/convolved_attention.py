"""Attention to keys and values that are convolved over a few tokens first (Baichuan-M1 of 2025, Inkling of 2026)."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_core.attention import Attention
from axon_core.conv import causal_conv, draw_taps
from axon_core.specs.convolved_attention import TapsName
from axon_core.states import read_states, write_states
from axon_core.window import Mask

__all__ = ["ChannelConv", "ConvolvedAttention", "HeadConv"]


class HeadConv(nn.Module):
    """A causal depthwise convolution whose taps all channels of a head share; shaped as published checkpoints have it.

    Args:
        heads: Number of heads H.
        taps: Tokens that it sees, the current one included.
    """

    def __init__(self, heads: int, taps: int) -> None:
        super().__init__()
        bound = 1 / sqrt(taps)
        self.weight = mx.random.uniform(-bound, bound, (1, 1, heads, 1, taps))

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, state: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """Convolve `x` (B, L, H, W) to float32; the state, of the last inputs, is (B, taps - 1, H W)."""
        spread = nn.Module()
        spread.weight = mx.repeat(self.weight[0, 0, :, 0], x.shape[-1], axis=0)[..., None]
        y, state = causal_conv(spread, x.flatten(2), mask, state)
        return y.reshape(x.shape), state


class ChannelConv(nn.Conv1d):
    """The same with taps of each channel, `weight` (channels, taps, 1).

    Args:
        channels: Number of channels, H W.
        taps: Tokens that it sees, the current one included.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__(channels, channels, taps, groups=channels, bias=False)
        draw_taps(self)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, state: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """See `HeadConv`."""
        y, state = causal_conv(self, x.flatten(2), mask, state)
        return y.reshape(x.shape), state


class ConvolvedAttention(Attention):
    """Attention whose keys and values see a few tokens before their own.

        k = rope(norm(c(k_proj(x))))
        v = c'(v_proj(x))

    Each c is a causal depthwise convolution, or with `conv_residual` its input and its output together.

    Args:
        hidden_dim: Width D of the model.
        num_heads: Number of query heads.
        d_conv: Tokens that a convolution sees, the current one included.
        taps: Whether each `head` has taps, or each `channel`.
        conv_residual: Whether what a convolution reads is added to what it gives.
        **options: As for `Attention`.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        d_conv: int,
        taps: TapsName = "head",
        conv_residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(hidden_dim, num_heads, **options)
        self.conv_residual = conv_residual
        for name in ("k", "v"):
            if taps == "head":
                self[f"{name}_conv"] = HeadConv(self.num_kv_heads, d_conv)
            else:
                self[f"{name}_conv"] = ChannelConv(len(self[f"{name}_proj"].weight), d_conv)

    def __call__(
        self,
        x: mx.array,
        mask: Mask | tuple[Mask, ...] = None,
        cache: Any = None,
        offset: int | mx.array | None = None,
        kv: tuple[Any, Any, mx.array | None] | None = None,
        publish: Callable[[str, Any], None] | None = None,
    ) -> tuple[mx.array, Any]:
        """Attend.

        Args:
            x: (B, L, D).
            mask: As for `Attention`, or a pair of that and, False on padding, (B, L).
            cache: A `CacheList` of a cache of keys and values and of an `ArraysCache(2)` with the last `d_conv - 1`
                of both before their convolutions, (B, d_conv - 1, H W) each; or None.
            offset: Position of the first token, int or (B,); the cache's own, or 0, unless given.
            kv: None: this layer has keys and values of its own.
            publish: As for `Attention`.

        Returns:
            The output (B, L, D), and `cache`.
        """
        kept, before = (None, None) if cache is None else (cache[0], cache[1])
        seen, real = mask if isinstance(mask, tuple) else (mask, None)
        if offset is None:
            offset = 0 if kept is None else kept.offset
        seen = self._default_mask(seen, kept, x.shape[1])  # asked before the update
        if self.input_scale != 1.0:
            x = x * self.input_scale
        states, padding = read_states(before, real if isinstance(real, mx.array) else None, x.shape[1])
        keys, key_state = self._convolved("k", x, padding, states[0])
        values, value_state = self._convolved("v", x, padding, states[1])
        write_states(before, [key_state, value_state], x.shape[1])
        kv = self._kept(keys, values, kept, offset)
        if publish is not None:
            publish("kv", kv)
        return self._output(x, self._queries(x, offset), kv, seen, offset, kept), cache

    def _convolved(
        self, name: str, x: mx.array, mask: mx.array | None, state: mx.array | None
    ) -> tuple[mx.array, mx.array]:
        """Projected and convolved, (B, L, heads * width), and what the next call has to see."""
        projected = self._heads(name, self._projected(name, x))
        y, state = self[f"{name}_conv"](projected, mask, state)
        if self.conv_residual:
            y = y + projected.astype(mx.float32)
        return y.astype(x.dtype).flatten(2), state
