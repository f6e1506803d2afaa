"""Short convolutions of keys and values, read through a gate of queries: the local mixer of Gear (mlx-lm's `gear`)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.conv import causal_conv, draw_taps
from axon_core.elementary import sigmoid
from axon_core.linear import Linear
from axon_core.norms import HeadNorm
from axon_core.specs.kv_conv import KVConvOptions
from axon_core.states import read_states, write_states

__all__ = ["KVConv"]


class KVConv(nn.Module):
    """What attention has, over a few tokens and without its softmax.

        q, k, v = q_norm(q_proj(x)), k_norm(k_proj(x)), v_proj(x)
        y       = o_proj(sigmoid(q * key_conv(k)) * value_conv(v))

    Both convolutions are causal and depthwise. A key/value head serves several query heads, element by element. Between
    the projections all is computed in float32. Parameters are named as in mlx-lm's `ConvKVGatedMixer`, which lets the
    biases of padding into its convolutions.

    Args:
        hidden_size: Width D of input and output.
        options: `KVConvOptions`.
        shard: For heads that are split over devices: which part this is; a norm of all heads needs it.
    """

    def __init__(self, hidden_size: int, options: KVConvOptions, shard: Shard = Shard()) -> None:
        super().__init__()
        heads, kv_heads, width = options.num_heads, options.kv_heads, options.head_dim
        self.num_heads, self.num_kv_heads = heads, kv_heads
        self.q_proj = Linear(hidden_size, heads * width, bias=options.bias)
        self.k_proj = Linear(hidden_size, kv_heads * width, bias=options.bias)
        self.v_proj = Linear(hidden_size, kv_heads * width, bias=options.bias)
        self.o_proj = Linear(heads * width, hidden_size, bias=options.bias)
        channels = kv_heads * width
        for name in ("key_conv", "value_conv"):
            conv = nn.Conv1d(channels, channels, options.d_conv, groups=channels, bias=options.bias)
            draw_taps(conv)
            self[name] = conv
        if options.qk_norm is not None:
            self.q_norm = HeadNorm(heads, width, options.qk_norm, shard=shard)
            self.k_norm = HeadNorm(kv_heads, width, options.qk_norm, shard=shard)

    @classmethod
    def from_options(cls, options: KVConvOptions, dims: Dims) -> KVConv:
        """Build from `KVConvOptions`; input and output are as wide as the hidden size."""
        return cls(dims.hidden_size, options, dims.shard)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(2)`, which is updated, or a list of the two arrays, which is not.

        Returns:
            The output (B, L, D), and the cache: the last `d_conv - 1` keys and values before their convolutions, each
            (B, d_conv - 1, num_kv_heads head_dim). Without a cache, a new list.
        """
        length = x.shape[1]
        (keys, values), mask = read_states(cache, mask, length)
        k, keys = causal_conv(self.key_conv, self._keys(x), mask, keys)
        v, values = causal_conv(self.value_conv, self.v_proj(x), mask, values)
        q = self._heads("q", x).astype(mx.float32)
        # Query heads beside the key/value head that they share, so that it need not be repeated.
        shape = (*x.shape[:2], self.num_kv_heads, self.num_heads // self.num_kv_heads, q.shape[-1])
        k, v = (a.reshape(*x.shape[:2], self.num_kv_heads, 1, -1) for a in (k, v))
        y = sigmoid(q.reshape(shape) * k) * v
        return self.o_proj(y.astype(x.dtype).flatten(2)), write_states(cache, [keys, values], length)

    def _keys(self, x: mx.array) -> mx.array:
        return self._heads("k", x).flatten(2)

    def _heads(self, name: str, x: mx.array) -> mx.array:
        """Projected and normalised, (B, L, heads, head_dim)."""
        heads = self.num_heads if name == "q" else self.num_kv_heads
        y = mx.unflatten(self[f"{name}_proj"](x), -1, (heads, -1))
        norm = f"{name}_norm"
        return self[norm](y) if norm in self else y
