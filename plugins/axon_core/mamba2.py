"""Mamba-2's mixer (Dao and Gu 2024): one decay per head, so that the scan becomes matrix products."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import gated
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import silu, softplus
from axon_core.linear import Linear
from axon_core.norms import GatedRMSNorm
from axon_core.specs.mamba import Mamba2Options, SectionScales
from axon_core.ssd import ssd_scan
from axon_core.states import read_states, write_states
from axon_core.steps import first_rates, first_steps

__all__ = ["Mamba2"]


class Mamba2(nn.Module):
    """Mamba-2's mixer of H heads with P channels each, whose B and C are shared by groups of heads.

        z, xBC, dt = s * in_proj(input_scale * u)
        x, B, C    = silu(conv1d(xBC))
        dt         = clip(softplus(dt + dt_bias), dt_min, dt_max)
        y          = out_proj(norm(scan(x, dt, -exp(A_log), B, C, D) * silu(z)))

    The factors, s for each of z, x, B, C and dt, are those of Falcon-H1 and else 1. The convolution, the step sizes,
    the scan and the gated norm are computed in float32, everything else in the type of the input.
    Parameters are named and laid out as in mlx-lm's `Mamba2Block`.

    Args:
        options: `Mamba2Options`.
        hidden_size: Width of input and output.
        shard: For heads that are split over devices: `norm_groups` are then those of all of them.
    """

    def __init__(self, options: Mamba2Options, hidden_size: int, shard: Shard = Shard()) -> None:
        super().__init__()
        self.num_heads, self.head_dim = options.heads(hidden_size), options.head_dim
        self.n_groups, self.d_state = options.n_groups, options.d_state
        self.dt_min, self.dt_max, self.input_scale = options.dt_min, options.dt_max, options.input_scale
        inner, convolved = options.widths(hidden_size)
        self._section_scales = self._spread(options.section_scales, inner)

        self.in_proj = Linear(hidden_size, inner + convolved + self.num_heads, bias=options.bias)
        self.conv1d = nn.Conv1d(convolved, convolved, options.d_conv, groups=convolved, bias=options.conv_bias)
        draw_taps(self.conv1d)
        self.A_log, self.dt_bias = first_rates((self.num_heads,)), first_steps((self.num_heads,))
        self.D = mx.ones((self.num_heads,))
        if options.norm:
            self.norm = GatedRMSNorm(inner, options.norm_eps, options.norm_groups, options.norm_before_gate, shard)
        self.out_proj = Linear(inner, hidden_size, bias=options.output_bias)

    @classmethod
    def from_options(cls, options: Mamba2Options, dims: Dims) -> Mamba2:
        """Build from `Mamba2Options`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size, dims.shard)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(2)`, which is updated, or a list of the two arrays, which is not.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last `d_conv - 1` inputs of the convolution,
            (B, d_conv - 1, H P + 2 G N), entry 1 the state, (B, H, P, N) in float32. Without a cache, a new list.
        """
        length = x.shape[1]
        (conv_state, state), mask = read_states(cache, mask, length)
        inner, states = self.num_heads * self.head_dim, self.n_groups * self.d_state
        z, u, dt = mx.split(self._projected(x), [inner, 2 * inner + 2 * states], axis=-1)
        u, conv_state = causal_conv(self["conv1d"], u, mask, conv_state)
        u, B, C = mx.split(silu(u).astype(x.dtype), [inner, inner + states], axis=-1)
        y, state = ssd_scan(
            mx.unflatten(u, -1, (self.num_heads, self.head_dim)),
            self._steps(dt),
            -mx.exp(self["A_log"].astype(mx.float32)),
            mx.unflatten(B, -1, (self.n_groups, self.d_state)),
            mx.unflatten(C, -1, (self.n_groups, self.d_state)),
            self["D"],
            state,
            mask,
        )
        return self["out_proj"](self._gated(y.flatten(-2), z)), write_states(cache, [conv_state, state], length)

    def _spread(self, scales: SectionScales, inner: int) -> mx.array | None:
        """The factor of each row of the input projection, or None if all are 1."""
        if scales == SectionScales():
            return None
        states = self.n_groups * self.d_state
        widths = {"z": inner, "x": inner, "B": states, "C": states, "dt": self.num_heads}
        return mx.concatenate([mx.full((width,), getattr(scales, name)) for name, width in widths.items()])

    def _projected(self, x: mx.array) -> mx.array:
        """The gate, the input of the convolution and the steps, side by side."""
        y = self["in_proj"](x if self.input_scale == 1.0 else x * self.input_scale)
        return y if self._section_scales is None else (y * self._section_scales).astype(x.dtype)

    def _gated(self, y: mx.array, z: mx.array) -> mx.array:
        if "norm" not in self:
            return gated("silu", z, y)
        return self["norm"](y.astype(mx.float32), z.astype(mx.float32)).astype(y.dtype)

    def _steps(self, dt: mx.array) -> mx.array:
        """Step sizes (B, L, H) in float32."""
        dt = softplus(dt.astype(mx.float32) + self["dt_bias"])
        return mx.clip(dt, self.dt_min, self.dt_max)
