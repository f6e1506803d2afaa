"""The layers of axon-leaky. `B` sequences, `L` tokens, `D` hidden size, `C` channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_leaky import LeakyOptions

__all__ = ["LeakyIntegrator", "SquaredReluMLP"]


class LeakyIntegrator(nn.Module):
    """Leaky integrators with a gate on what they forget and on what they show.

        x_t    <- mix * x_t + (1 - mix) * x_{t-1}
        u, g, z = in_proj(x)
        keep_t  = sigmoid(g_t + leak)
        h_t     = keep_t * h_{t-1} + (1 - keep_t) * u_t
        y_t     = out_proj(h_t * silu(z_t))

    The state is a mean of what came in, so it is bounded by the largest input however long the sequence is; it is
    kept in float32, whatever the type of the input.
    """

    def __init__(self, options: LeakyOptions, dims: Dims) -> None:
        super().__init__()
        hidden, channels = dims.hidden_size, options.channels
        self.mix = mx.full((hidden,), 0.5)
        # A channel that keeps 1 - 1/tau has the time constant tau, and sigmoid(log(tau - 1)) = 1 - 1/tau: from 2 tokens
        # to the slowest, evenly in the logarithm.
        self.leak = mx.linspace(0.0, 1.0, channels) * math.log(options.slowest - 1)
        self.in_proj = nn.Linear(hidden, 3 * channels, bias=False)
        self.out_proj = nn.Linear(channels, hidden, bias=False)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L), or None.
            cache: mlx-lm's `ArraysCache` with two entries, or None: the state (B, C) and the last input (B, D).

        Returns:
            The output (B, L, D) and the cache.
        """
        state, last = (cache[0], cache[1]) if cache is not None else (None, None)
        last = mx.zeros_like(x[:, 0]) if last is None else last.astype(x.dtype)
        previous = shift(x, last, mask)
        mix = self.mix.astype(x.dtype)
        u, g, z = mx.split(self.in_proj(mix * x + (1 - mix) * previous), 3, axis=-1)
        h = self._integrate(u, g, state, mask)
        if cache is not None:
            cache[0], cache[1] = h[:, -1], last_real(x, last, mask)
            cache.advance(x.shape[1])
        return self.out_proj(h.astype(x.dtype) * nn.silu(z)), cache

    def _integrate(self, u: mx.array, g: mx.array, state: mx.array | None, mask: mx.array | None) -> mx.array:
        """The states (B, L, C) after every token; padding leaves them as they are."""
        g = g.astype(mx.float32) + self.leak.astype(mx.float32)
        keep, inflow = mx.sigmoid(g), mx.sigmoid(-g) * u.astype(mx.float32)
        if mask is not None:
            keep, inflow = mx.where(mask[..., None], keep, 1.0), mx.where(mask[..., None], inflow, 0.0)
        if state is not None:
            inflow = mx.concatenate([inflow[:, :1] + keep[:, :1] * state[:, None], inflow[:, 1:]], axis=1)
        return scan(keep, inflow)


class SquaredReluMLP(nn.Module):
    """`down_proj(relu(up_proj(x))**2)` (So et al. 2021, "Primer")."""

    def __init__(self, options: Mapping[str, Any], dims: Dims) -> None:
        super().__init__()
        self.up_proj = nn.Linear(dims.hidden_size, options["intermediate_size"], bias=options["bias"])
        self.down_proj = nn.Linear(options["intermediate_size"], dims.hidden_size, bias=options["bias"])

    def __call__(self, x: mx.array) -> mx.array:
        """From (B, L, D) to (B, L, D)."""
        return self.down_proj(mx.square(nn.relu(self.up_proj(x))))


def scan(keep: mx.array, inflow: mx.array) -> mx.array:
    """`h_t = keep_t * h_{t-1} + inflow_t` along axis 1 by doubling: log2(L) steps, nothing is divided."""
    step = 1
    while step < inflow.shape[1]:
        later = inflow[:, step:] + keep[:, step:] * inflow[:, :-step]
        inflow = mx.concatenate([inflow[:, :step], later], axis=1)
        keep = mx.concatenate([keep[:, :step], keep[:, step:] * keep[:, :-step]], axis=1)
        step *= 2
    return inflow


def shift(x: mx.array, last: mx.array, mask: mx.array | None) -> mx.array:
    """The input before each token (B, L, D): padding in front of a sequence is passed over, back to `last`."""
    previous = mx.concatenate([last[:, None], x[:, :-1]], axis=1)
    if mask is None:
        return previous
    real = mx.concatenate([mx.ones_like(mask[:, :1]), mask[:, :-1]], axis=1)
    return mx.where(real[..., None], previous, last[:, None])


def last_real(x: mx.array, last: mx.array, mask: mx.array | None) -> mx.array:
    """The last input that is no padding (B, D); `last` where all of the chunk is."""
    if mask is None:
        return x[:, -1]
    place = mx.max(mask * mx.arange(1, x.shape[1] + 1), axis=1)
    seen = mx.concatenate([last[:, None], x], axis=1)
    return mx.take_along_axis(seen, place[:, None, None], axis=1)[:, 0]
