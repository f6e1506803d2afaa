"""Kimi delta attention (Kimi Team 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture")."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import sigmoid, silu, softplus
from axon_core.gated_delta import gated_delta_rule
from axon_core.linear import Linear
from axon_core.norms import RMSNorm, unit_length
from axon_core.specs.kimi_delta_attention import KimiDeltaAttentionOptions
from axon_core.states import read_states, write_states
from axon_core.steps import first_rates, first_steps

__all__ = ["KimiDeltaAttention"]

#: Added to the sum of squares of a query or key.
_EPS: Final = 1e-6


class KimiDeltaAttention(nn.Module):
    """Linear attention by the delta rule with a decay for every channel of the key (KDA).

        q, k, v = silu(q_conv(q_proj(x))), silu(k_conv(k_proj(x))), silu(v_conv(v_proj(x)))
        beta = sigmoid(b_proj(x))                                               for each head
        g    = exp(-exp(A_log) * softplus(f_b_proj(f_a_proj(x)) + dt_bias))     for each channel of each head
        g    = exp(lower_bound * sigmoid(exp(A_log) * (f_b_proj(f_a_proj(x)) + dt_bias)))    with a `lower_bound`
        o    = gated_delta_rule(q / |q| / sqrt(head_dim), k / |k|, v, g, beta)
        y    = o_proj(o_norm(o) * sigmoid(g_b_proj(g_a_proj(x))))

    With `full_rank`, `f_proj` or `g_proj` takes the place of two projections; with `neg_eigval`, beta is twice that.
    Everything between the projections is computed in float32. Parameters and caches are named and laid out as in
    mlx-lm's `KimiDeltaAttention`, which gives the same but for convolutions of one token, where it keeps all of its
    input as the state.

    Args:
        options: `KimiDeltaAttentionOptions`.
        hidden_size: Width D of input and output.
    """

    def __init__(self, options: KimiDeltaAttentionOptions, hidden_size: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = options.num_heads, options.head_dim
        inner = self.num_heads * self.head_dim
        for name in "qkv":
            self[f"{name}_proj"] = Linear(hidden_size, inner, bias=False)
            self[f"{name}_conv"] = ShortConvolution(inner, options.d_conv)
        self.lower_bound, self.neg_eigval = options.lower_bound, options.neg_eigval
        for name in "fg":
            if name in options.low_rank:
                self[f"{name}_a_proj"] = Linear(hidden_size, options.rank, bias=False)
                self[f"{name}_b_proj"] = Linear(options.rank, inner, bias=False)
            else:
                self[f"{name}_proj"] = Linear(hidden_size, inner, bias=False)
        self.b_proj = Linear(hidden_size, self.num_heads, bias=False)
        self.A_log, self.dt_bias = first_rates((1, 1, self.num_heads, 1)), first_steps((inner,))
        self.o_norm = RMSNorm(self.head_dim, options.norm_eps)
        self.o_proj = Linear(inner, hidden_size, bias=False)

    @classmethod
    def from_options(cls, options: KimiDeltaAttentionOptions, dims: Dims) -> KimiDeltaAttention:
        """Build from `KimiDeltaAttentionOptions`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(4)`, which is updated, or a list of the four arrays, which is not.

        Returns:
            The output (B, L, D), and the cache: entries 0 to 2 hold the last `d_conv - 1` inputs of the convolutions of
            queries, keys and values, each (B, d_conv - 1, H head_dim), entry 3 the state, (B, H, head_dim, head_dim) of
            values by keys in float32. Without a cache, a new list.
        """
        length = x.shape[1]
        (*before, state), mask = read_states(cache, mask, length, count=4)
        heads, after = [], []
        for name, seen in zip("qkv", before, strict=True):
            y, seen = causal_conv(self[f"{name}_conv"].conv, self[f"{name}_proj"](x), mask, seen)
            heads.append(self._heads(silu(y)))
            after.append(seen)
        q, k, v = heads
        q, k = self.head_dim**-0.5 * unit_length(q, _EPS), unit_length(k, _EPS)
        beta = sigmoid(self.b_proj(x).astype(mx.float32))
        if self.neg_eigval:
            beta = 2 * beta
        o, state = gated_delta_rule(q, k, v, self._log_decay(x), beta, state, mask)
        gate = sigmoid(self._heads(self._projected("g", x)))
        y = self.o_proj((self.o_norm(o) * gate).astype(x.dtype).flatten(2))
        return y, write_states(cache, [*after, state], length)

    def _heads(self, y: mx.array) -> mx.array:
        """(B, L, H head_dim) to (B, L, H, head_dim)."""
        return mx.unflatten(y, -1, (self.num_heads, self.head_dim))

    def _projected(self, name: str, x: mx.array) -> mx.array:
        """What decays (f) or gate (g) are made of, (B, L, H head_dim) in float32."""
        full = f"{name}_proj"
        y = self[full](x) if full in self else self[f"{name}_b_proj"](self[f"{name}_a_proj"](x))
        return y.astype(mx.float32)

    def _log_decay(self, x: mx.array) -> mx.array:
        """Logarithm of each channel's decay, (B, L, H, head_dim)."""
        step, rate = self._projected("f", x) + self.dt_bias, mx.exp(self.A_log.astype(mx.float32))
        if self.lower_bound is None:
            return -rate * self._heads(softplus(step))
        return self.lower_bound * sigmoid(rate * self._heads(step))


class ShortConvolution(nn.Module):
    """The taps of a causal depthwise convolution, as `conv` in a module of its own, which is where mlx-lm has them.

    Args:
        channels: Number of channels.
        taps: Tokens that it sees, the current one included.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, taps, groups=channels, bias=False)
        draw_taps(self.conv)
