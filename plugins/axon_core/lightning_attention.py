"""Lightning attention: linear attention that forgets at a fixed rate (Qin et al. 2024, "Lightning Attention-2").

Measured on two shared x86-64 cores (mlx 0.32 on the CPU), ms for the recurrence alone:

    heads, width    tokens    this form    mlx-lm (a step per token)
    4, 64              512      31           59
    16, 128            512     294          739
    4, 64             2048     122          221
    16, 128           2048    1082         3649
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.elementary import sigmoid, silu
from axon_core.linear import Linear
from axon_core.norms import HeadNorm, RMSNorm
from axon_core.rope import RoPE
from axon_core.slopes import slopes
from axon_core.specs.lightning_attention import LightningAttentionOptions
from axon_core.ssd import ssd_scan
from axon_core.states import read_states, write_states

__all__ = ["LightningAttention"]


class LightningAttention(nn.Module):
    """Linear attention with a fixed decay for every head, and an output gate, as in Ring-linear and MiniMax-01.

        q, k, v = act(query_key_value(x))                  then norms and rotation of q and k
        S_t = exp(-slope_scale * slope) S_{t-1} + v_t k_t^T
        o_t = scale * S_t q_t
        y   = dense(g_norm(o) * sigmoid(g_proj(x)))

    This is the scan of Mamba-2 with steps of one: A is minus the slope, B the key, C the query and x the value. The
    slopes of the heads are those of ALiBi.

    Parameters are named and laid out as in mlx-lm's `bailing_moe_linear.LinearAttention`, and the results are the same
    in float32. There the state is the transpose of this one and as coarse as the activations, padding is not masked,
    and the factor of the slopes, which the published code gives layer 0 as one that is above 1, ends at 1.

    Args:
        options: `LightningAttentionOptions`.
        hidden_size: Width D of input and output.
        shard: For heads that are split over devices: which part this is, whose slopes depend on it. `norm_groups` are
            then those of all of them.
    """

    def __init__(self, options: LightningAttentionOptions, hidden_size: int, shard: Shard = Shard()) -> None:
        super().__init__()
        self.num_heads = options.num_heads
        width, inner = options.widths(hidden_size)
        self.scale = options.scale or width**-0.5
        self.activated = options.activation == "silu"
        # The underscore keeps them out of the parameters: they are neither learned nor saved.
        self._decay = mx.array([-options.slope_scale * slope for slope in slopes(self.num_heads, shard)])
        self.query_key_value = Linear(hidden_size, 3 * inner, bias=options.bias)
        if options.qk_norm is not None:
            self.query_layernorm = HeadNorm(self.num_heads, width, options.qk_norm, shard=shard)
            self.key_layernorm = HeadNorm(self.num_heads, width, options.qk_norm, shard=shard)
        self.norm_after_rope = options.qk_norm is not None and options.qk_norm.when == "after_rope"
        self.rope = None if options.rope is None else RoPE(width, options.rope)
        self.g_proj = Linear(hidden_size, inner, bias=False)
        self.g_norm = RMSNorm(inner, options.norm_eps, num_groups=options.norm_groups, shard=shard)
        self.dense = Linear(inner, hidden_size, bias=options.out_bias)

    @classmethod
    def from_options(cls, options: LightningAttentionOptions, dims: Dims) -> LightningAttention:
        """Build from `LightningAttentionOptions`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size, dims.shard)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, cache: Any = None, offset: int | mx.array = 0
    ) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(1)`, which is updated, or a list of the one array, which is not.
            offset: Position of the first token, int or (B,); only the rotation needs it.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the state, (B, H, head_dim, head_dim) of values by keys
            in float32. Without a cache, a new list.
        """
        length = x.shape[1]
        (state,), mask = read_states(cache, mask, length, count=1)
        qkv = self.query_key_value(x)
        if self.activated:
            qkv = silu(qkv)
        q, k, v = (mx.unflatten(part, -1, (self.num_heads, -1)) for part in mx.split(qkv, 3, axis=-1))
        q, k = self._turned(q, "query_layernorm", offset), self._turned(k, "key_layernorm", offset)
        steps = mx.ones(q.shape[:3])
        o, state = ssd_scan(v, steps, self._decay, k, self.scale * q, state=state, mask=mask)
        y = self.dense(self.g_norm(o.flatten(2)) * sigmoid(self.g_proj(x)))
        return y, write_states(cache, [state], length)

    def _turned(self, x: mx.array, norm: str, offset: int | mx.array) -> mx.array:
        """Normalise and rotate (B, L, H, head_dim)."""
        if norm in self and not self.norm_after_rope:
            x = self[norm](x)
        if self.rope is not None:
            x = self.rope(x.swapaxes(1, 2), offset).swapaxes(1, 2)
        if norm in self and self.norm_after_rope:
            x = self[norm](x)
        return x
