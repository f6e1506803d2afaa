"""Selective state space layer: causal convolution, selective scan, gate (Gu and Dao 2023, "Mamba")."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import gated
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import silu, softplus
from axon_core.few_tokens import inherits, selective_of_one, stored
from axon_core.kernels import Selective
from axon_core.linear import Linear
from axon_core.scan import selective_scan
from axon_core.specs.ssm import SSMOptions, resolve_dt_rank
from axon_core.states import read_states, write_states
from axon_core.steps import first_steps

__all__ = ["AxonSSM", "SSMConfig"]


@dataclass(frozen=True, slots=True)
class SSMConfig:
    """Sizes of an `AxonSSM`; any object with the first four attributes will do.

    Attributes:
        hidden_dim: Width of input and output.
        ssm_intermediate_dim: Number of channels.
        ssm_d_state: States of each channel.
        ssm_d_conv: Tokens that the convolution sees, the current one included.
        ssm_dt_rank: Rank of the projection to step sizes; "auto" is a sixteenth of the hidden width, rounded up.
        ssm_conv_bias: Bias of the convolution.
        ssm_bias: Bias of the input and output projections.
        ssm_dt_min: Smallest step.
        ssm_dt_max: Largest step.
    """

    hidden_dim: int
    ssm_intermediate_dim: int
    ssm_d_state: int = 16
    ssm_d_conv: int = 4
    ssm_dt_rank: int | Literal["auto"] = 1
    ssm_conv_bias: bool = True
    ssm_bias: bool = False
    ssm_dt_min: float = 1e-4
    ssm_dt_max: float = 100.0


class AxonSSM(nn.Module):
    """Mamba-style layer of E channels with N states each; its expansion takes the place of a feed-forward layer.

        x, z = in_proj(u)
        x    = silu(conv1d(x))
        B, C, r = x_proj(x)
        dt   = clip(softplus(dt_proj(r)), dt_min, dt_max)
        y    = out_proj(scan(x, dt, -exp(A_log), B, C, D) * silu(z))

    The convolution, the step sizes and the scan are computed in float32, everything else in the type of the input.

    Args:
        config: `SSMConfig`, or any object with `hidden_dim`, `ssm_intermediate_dim`, `ssm_d_state` and `ssm_d_conv`;
            the other attributes of `SSMConfig` are read where present.
        shard: For channels that are split over devices: each has a part of the sum that makes steps, B and C.
    """

    def __init__(self, config: Any, shard: Shard = Shard()) -> None:
        super().__init__()
        self._summed, self._alone = shard.sum, shard.size == 1
        hidden, channels = config.hidden_dim, config.ssm_intermediate_dim
        self.d_state, self.d_conv = config.ssm_d_state, config.ssm_d_conv
        self.dt_rank = resolve_dt_rank(getattr(config, "ssm_dt_rank", 1), hidden)
        self.dt_min, self.dt_max = getattr(config, "ssm_dt_min", 1e-4), getattr(config, "ssm_dt_max", 100.0)
        bias, conv_bias = getattr(config, "ssm_bias", False), getattr(config, "ssm_conv_bias", True)

        self.in_proj = Linear(hidden, 2 * channels, bias=bias)
        self.conv1d = nn.Conv1d(channels, channels, self.d_conv, groups=channels, bias=conv_bias)
        self.x_proj = Linear(channels, 2 * self.d_state + self.dt_rank, bias=False)
        self.dt_proj = Linear(self.dt_rank, channels)
        self.out_proj = Linear(channels, hidden, bias=bias)
        self.A_log = mx.broadcast_to(mx.log(mx.arange(1.0, self.d_state + 1)), (channels, self.d_state)) + 0.0
        self.D = mx.ones((channels,))
        self._init_steps(channels)

    def _init_steps(self, channels: int) -> None:
        """As in the code of the paper."""
        rank = 1 / sqrt(self.dt_rank)
        draw_taps(self.conv1d)
        self.dt_proj.weight = mx.random.uniform(-rank, rank, self.dt_proj.weight.shape)
        self.dt_proj.bias = first_steps((channels,))

    @classmethod
    def from_options(cls, options: SSMOptions, dims: Dims) -> AxonSSM:
        """Build from `SSMOptions`; input and output are as wide as the hidden size."""
        return cls(
            SSMConfig(
                hidden_dim=dims.hidden_size,
                ssm_intermediate_dim=options.channels(dims.hidden_size),
                ssm_d_state=options.d_state,
                ssm_d_conv=options.d_conv,
                ssm_dt_rank=options.dt_rank,
                ssm_conv_bias=options.conv_bias,
                ssm_bias=options.bias,
                ssm_dt_min=options.dt_min,
                ssm_dt_max=options.dt_max,
            ),
            dims.shard,
        )

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(2)`, which is updated, or a list of the two arrays, which is not.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last `d_conv - 1` inputs of the convolution,
            (B, d_conv - 1, E), entry 1 the state, (B, N, E) in float32. Without a cache, a new list.
        """
        if (y := selective_of_one(self, x, mask, cache)) is not None:
            return y, cache
        (conv_state, state), mask = read_states(cache, mask, x.shape[1])
        x, z = mx.split(self["in_proj"](x), 2, axis=-1)
        u, conv_state = causal_conv(self["conv1d"], x, mask, conv_state)
        x = silu(u).astype(x.dtype)
        dt, B, C = self._project(x)
        y, state = selective_scan(x, dt, -mx.exp(self["A_log"].astype(mx.float32)), B, C, self["D"], state, mask)
        return self["out_proj"](gated("silu", z, y)), write_states(cache, [conv_state, state], x.shape[1])

    def residual(
        self, norm: nn.Module | None, x: mx.array, mask: mx.array | None = None, cache: Any = None
    ) -> mx.array | None:
        """`x + self(norm(x), mask, cache)` in one operation; None where it is to be computed in steps."""
        return selective_of_one(self, x, mask, cache, norm, adds=True)

    def selective(self) -> Selective | None:
        """What kernels read of it; None where it does more."""
        if not self._alone or not inherits(self, AxonSSM, "__call__", "_project"):
            return None
        return self._selective()

    def _selective(self) -> Selective | None:
        projections = stored(self, "in_proj", "x_proj", "dt_proj", "out_proj")
        conv = self["conv1d"]
        if projections is None or type(conv) is not nn.Conv1d:
            return None
        taps = conv["weight"], conv.get("bias")
        return Selective(projections, taps, self["A_log"], self["D"], steps=(self.dt_min, self.dt_max))

    def _project(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Steps (B, L, E) in float32, and B and C (B, L, N)."""
        B, C, dt = mx.split(self._summed(self["x_proj"](x)), [self.d_state, 2 * self.d_state], axis=-1)
        dt = softplus(self["dt_proj"](dt.astype(mx.float32)))
        return mx.clip(dt, self.dt_min, self.dt_max), B, C
