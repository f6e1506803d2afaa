"""Gated delta network: linear attention whose state corrects itself (Yang et al. 2024, "Gated Delta Networks")."""

from __future__ import annotations

from typing import Any, Final, Literal

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import sigmoid, silu, softplus
from axon_core.gated_delta import gated_delta_rule
from axon_core.linear import Linear
from axon_core.norms import GatedRMSNorm, unit_length
from axon_core.specs.gated_delta_net import GatedDeltaNetOptions
from axon_core.states import read_states, write_states
from axon_core.steps import first_rates, first_steps

__all__ = ["GatedDeltaNet"]

#: Added to the sum of squares of a query or key.
_EPS: Final = 1e-6


class GatedDeltaNet(nn.Module):
    """Linear attention by the gated delta rule, with an output gate, as in Qwen3-Next.

        q, k, v = silu(conv1d(in_proj_qkv(x)))
        beta = sigmoid(in_proj_b(x))                                            twice that with `neg_eigval`
        g    = exp(-exp(A_log) * softplus(in_proj_a(x) + dt_bias))
        o    = gated_delta_rule(q / |q| / sqrt(head_k_dim), k / |k|, v, g, beta)
        y    = out_proj(norm(o) * silu(in_proj_z(x)))                           or `gate_activation: sigmoid`

    Where they are `separate`, queries, keys and values have projections and convolutions of their own (`q_proj`,
    `q_conv1d`, …), as in OLMo Hybrid. Everything between the projections is computed in float32. Names and shapes of
    the parameters are those of Qwen3.5's layer in mlx-lm.

    Args:
        hidden_dim: Width D of input and output.
        num_k_heads: Number of query heads, and of key heads.
        num_v_heads: Number of value heads, a multiple of `num_k_heads`; as many as those unless given.
        head_k_dim: Width of a query and of a key.
        head_v_dim: Width of a value; `head_k_dim` unless given.
        d_conv: Tokens that the convolution sees, the current one included.
        norm_eps: Added to the mean square by the norm of the output.
        neg_eigval: Whether twice the correction is written, which gives transitions negative eigenvalues (Grazzi et al.
            2024, "Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues").
        separate: Whether queries, keys and values have matrices and filters of their own.
        gate_activation: Activation of the output gate, `silu` or `sigmoid`.

    Raises:
        ValueError: If `num_v_heads` is not a multiple of `num_k_heads`.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_k_heads: int,
        num_v_heads: int | None = None,
        head_k_dim: int = 128,
        head_v_dim: int | None = None,
        d_conv: int = 4,
        norm_eps: float = 1e-6,
        neg_eigval: bool = False,
        separate: bool = False,
        gate_activation: Literal["silu", "sigmoid"] = "silu",
    ) -> None:
        super().__init__()
        self.num_k_heads, self.num_v_heads = num_k_heads, num_v_heads or num_k_heads
        self.head_k_dim, self.head_v_dim = head_k_dim, head_v_dim or head_k_dim
        self.neg_eigval, self.separate = neg_eigval, separate
        if self.num_v_heads % num_k_heads:
            raise ValueError(f"num_v_heads ({num_v_heads}) is not a multiple of num_k_heads ({num_k_heads})")
        values = self.num_v_heads * self.head_v_dim
        keys = num_k_heads * head_k_dim
        widths = {"q_": keys, "k_": keys, "v_": values} if separate else {"": 2 * keys + values}

        for name, channels in widths.items():
            self[f"{name}proj" if separate else "in_proj_qkv"] = Linear(hidden_dim, channels, bias=False)
        self.in_proj_z = Linear(hidden_dim, values, bias=False)
        self.in_proj_b = Linear(hidden_dim, self.num_v_heads, bias=False)
        self.in_proj_a = Linear(hidden_dim, self.num_v_heads, bias=False)
        self.norm = GatedRMSNorm(self.head_v_dim, norm_eps, before_gate=True, activation=gate_activation)
        self.out_proj = Linear(values, hidden_dim, bias=False)

        for name, channels in widths.items():
            conv = nn.Conv1d(channels, channels, d_conv, groups=channels, bias=False)
            draw_taps(conv)
            self[f"{name}conv1d"] = conv
        self.A_log, self.dt_bias = first_rates((self.num_v_heads,)), first_steps((self.num_v_heads,))

    @classmethod
    def from_options(cls, options: GatedDeltaNetOptions, dims: Dims) -> GatedDeltaNet:
        """Build from `GatedDeltaNetOptions`; input and output are as wide as the hidden size."""
        return cls(dims.hidden_size, **dict(options))

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(2)`, which is updated, or a list of the two arrays, which is not; of four
                where queries, keys and values are separate.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last `d_conv - 1` inputs of the convolution,
            (B, d_conv - 1, 2 num_k_heads head_k_dim + num_v_heads head_v_dim), entry 1 the state,
            (B, num_v_heads, head_v_dim, head_k_dim) in float32. Without a cache, a new list. Where they are separate,
            entries 0 to 2 hold the inputs of the convolutions of queries, keys and values, entry 3 the state.
        """
        names = ("q_", "k_", "v_") if self.separate else ("",)
        (*before, state), mask = read_states(cache, mask, x.shape[1], count=len(names) + 1)
        parts, after = [], []
        for name, seen in zip(names, before, strict=True):
            projected = self[f"{name}proj" if name else "in_proj_qkv"](x)
            part, seen = causal_conv(self[f"{name}conv1d"], projected, mask, seen)
            parts.append(part)
            after.append(seen)
        q, k, v = self._heads(silu(parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)))
        o, state = gated_delta_rule(q, k, v, self._log_decay(x), self._beta(x), state, mask)
        z = self["in_proj_z"](x).reshape(o.shape)
        y = self["norm"](o.astype(mx.float32), z.astype(mx.float32)).astype(x.dtype).flatten(2)
        return self["out_proj"](y), write_states(cache, [*after, state], x.shape[1])

    def _heads(self, qkv: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries, keys and values, (B, L, heads, dim); keys have length one, queries `head_k_dim ** -0.5`."""
        keys, scale = self.num_k_heads * self.head_k_dim, self.head_k_dim**-0.5
        qk, v = mx.split(qkv, [2 * keys], axis=-1)
        qk = qk.reshape(*qk.shape[:2], 2, self.num_k_heads, self.head_k_dim)
        qk = unit_length(qk, _EPS)
        q, k = qk[:, :, 0], qk[:, :, 1]
        return scale * q, k, v.reshape(*v.shape[:2], self.num_v_heads, self.head_v_dim)

    def _log_decay(self, x: mx.array) -> mx.array:
        """Logarithm of each head's decay, (B, L, num_v_heads)."""
        step = softplus(self["in_proj_a"](x).astype(mx.float32) + self["dt_bias"])
        return -mx.exp(self["A_log"].astype(mx.float32)) * step

    def _beta(self, x: mx.array) -> mx.array:
        beta = sigmoid(self["in_proj_b"](x).astype(mx.float32))
        return 2 * beta if self.neg_eigval else beta
