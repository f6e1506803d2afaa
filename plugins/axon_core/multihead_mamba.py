"""Mamba's mixer with heads, as in PLaMo 2: the projections of Mamba around the scan of Mamba-2."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import gated
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import silu, softplus
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.specs.multihead_mamba import MultiheadMambaOptions
from axon_core.ssd import ssd_scan
from axon_core.states import read_states, write_states
from axon_core.steps import first_rates, first_steps

__all__ = ["MultiheadMamba"]


class MultiheadMamba(nn.Module):
    """Mamba's mixer of H heads with P channels each, which share B and C.

        z, x    = in_proj(u)                        P rows of z and P of x for each head in turn
        x       = silu(conv1d(x))
        B, C, r = bcdt_proj(x)
        dt      = clip(softplus(dt_proj(dt_norm(r)) + dt_bias), dt_min, dt_max)
        y       = out_proj(scan(x, dt, -exp(A_log), B_norm(B), C_norm(C), D) * silu(z))

    The convolution, the step sizes and the scan are computed in float32, everything else in the type of the input.
    Parameters are named and laid out as in mlx-lm's `plamo2.Mamba`, whose limits are 0.001 and 100; the published
    code has none.

    Args:
        options: `MultiheadMambaOptions`.
        hidden_size: Width of input and output.
        shard: For heads that are split over devices: each has a part of the sum that makes steps, B and C.
    """

    def __init__(self, options: MultiheadMambaOptions, hidden_size: int, shard: Shard = Shard()) -> None:
        super().__init__()
        self._summed = shard.sum
        self.num_heads, self.head_dim, self.d_state = options.num_heads, options.head_dim, options.d_state
        self.dt_min, self.dt_max = options.dt_min, options.dt_max
        inner, rank = options.channels, options.rank(hidden_size)
        self.in_proj = Linear(hidden_size, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, options.d_conv, groups=inner, bias=False)
        draw_taps(self.conv1d)
        self.bcdt_proj = Linear(inner, 2 * self.d_state + rank, bias=False)
        self.dt_proj = Linear(rank, self.num_heads, bias=False)
        self.dt_norm = RMSNorm(rank, options.norm_eps)
        self.B_norm = RMSNorm(self.d_state, options.norm_eps)
        self.C_norm = RMSNorm(self.d_state, options.norm_eps)
        self.A_log, self.dt_bias = first_rates((self.num_heads,)), first_steps((self.num_heads,))
        self.D = mx.ones((self.num_heads,))
        self.out_proj = Linear(inner, hidden_size, bias=False)

    @classmethod
    def from_options(cls, options: MultiheadMambaOptions, dims: Dims) -> MultiheadMamba:
        """Build from `MultiheadMambaOptions`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size, dims.shard)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(2)`, which is updated, or a list of the two arrays, which is not.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last `d_conv - 1` inputs of the convolution,
            (B, d_conv - 1, H P), entry 1 the state, (B, H, P, N) in float32. Without a cache, a new list.
        """
        length = x.shape[1]
        (conv_state, state), mask = read_states(cache, mask, length)
        z, u = mx.split(mx.unflatten(self.in_proj(x), -1, (self.num_heads, -1)), 2, axis=-1)
        u, conv_state = causal_conv(self.conv1d, u.flatten(2), mask, conv_state)
        u = silu(u).astype(x.dtype)
        steps, B, C = self._projected(u)
        y, state = ssd_scan(
            mx.unflatten(u, -1, (self.num_heads, self.head_dim)),
            steps,
            -mx.exp(self.A_log.astype(mx.float32)),
            B,
            C,
            self.D,
            state,
            mask,
        )
        return self.out_proj(gated("silu", z, y).flatten(2)), write_states(cache, [conv_state, state], length)

    def _projected(self, u: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Steps (B, L, H) in float32, and B and C, (B, L, 1, N) each: all heads are one group."""
        B, C, r = mx.split(self._summed(self.bcdt_proj(u)), [self.d_state, 2 * self.d_state], axis=-1)
        steps = softplus(self.dt_proj(self.dt_norm(r).astype(mx.float32)) + self.dt_bias)
        steps = mx.clip(steps, self.dt_min, self.dt_max)
        return steps, self.B_norm(B)[:, :, None], self.C_norm(C)[:, :, None]
