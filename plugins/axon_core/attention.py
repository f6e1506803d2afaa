"""Causal softmax attention: grouped-query, with rotary positions, over everything before or within a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.norms import RMSNorm
from axon_core.rope import RoPE
from axon_core.specs.attention import BiasOptions, NormOptions, RopeOptions
from axon_core.window import Mask, banded_attention

__all__ = ["Attention", "SlidingWindowAttention"]


class Attention(nn.Module):
    """Causal attention.

    Args:
        hidden_dim: Width D of the model.
        num_heads: Number of query heads.
        num_kv_heads: Number of key/value heads, a divisor of `num_heads`; as many unless given.
        head_dim: Width of a head; `hidden_dim // num_heads` unless given.
        bias: Biases of the projections, all or a choice.
        rope: Rotary position embedding, none unless given.
        qk_norm: RMS norm of each head's queries and keys, before rope.
        window_size: Tokens that a query sees, itself included; all unless given.
        scale: Factor of the scores; `head_dim ** -0.5` unless given.
        kv_from: Set on a layer that reads the keys and values of another one: it has no projections for them.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool | BiasOptions = False,
        rope: RopeOptions | None = None,
        qk_norm: NormOptions | None = None,
        window_size: int | None = None,
        scale: float | None = None,
        kv_from: str | None = None,
    ) -> None:
        super().__init__()
        head_dim = head_dim or hidden_dim // num_heads
        num_kv_heads = num_kv_heads or num_heads
        if isinstance(bias, bool):
            bias = BiasOptions(q=bias, k=bias, v=bias, o=bias)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.window_size = window_size
        self.scale = scale or head_dim**-0.5

        self.q_proj = nn.Linear(hidden_dim, num_heads * head_dim, bias=bias.q)
        if kv_from is None:
            self.k_proj = nn.Linear(hidden_dim, num_kv_heads * head_dim, bias=bias.k)
            self.v_proj = nn.Linear(hidden_dim, num_kv_heads * head_dim, bias=bias.v)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_dim, bias=bias.o)
        if qk_norm is not None:
            self.q_norm = RMSNorm(head_dim, qk_norm.eps)
            if kv_from is None:
                self.k_norm = RMSNorm(head_dim, qk_norm.eps)
        self.rope = None if rope is None else RoPE(head_dim, rope)

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> Attention:
        """Build from `AttentionOptions`."""
        return cls(dims.hidden_size, **dict(options))

    def __call__(
        self,
        x: mx.array,
        mask: Mask = None,
        cache: Any = None,
        offset: int | mx.array | None = None,
        kv: tuple[Any, Any, mx.array | None] | None = None,
        publish: Callable[[str, Any], None] | None = None,
    ) -> tuple[mx.array, Any]:
        """Attend.

        Args:
            x: (B, L, D).
            mask: None for the causal mask within the window, or a boolean array that broadcasts to (B, H, L, S) and
                is taken as it is. "causal" is the same as None.
            cache: An mlx-lm cache of keys and values, updated in place, or None.
            offset: Position of the first token, int or (B,); the cache's own, or 0, unless given.
            kv: Published keys, values and left padding of another layer, used instead of own ones.
            publish: Called with `("kv", (keys, values, left padding or None))`, keys and values over all S tokens.

        Returns:
            The output (B, L, D), and `cache`.
        """
        if offset is None:
            offset = 0 if cache is None else cache.offset
        mask = self._default_mask(mask, cache, x.shape[1])
        queries = self._heads(self.q_proj(x), self.num_heads, "q_norm", offset)
        if kv is None:
            kv = self._keys_values(x, cache, offset)
        if publish is not None:
            publish("kv", kv)
        y = self._attend(queries, kv, mask)
        return self.o_proj(y.transpose(0, 2, 1, 3).flatten(2)), cache

    def _default_mask(self, mask: Mask, cache: Any, length: int) -> Mask:
        """What to ask of the cache before its update: only it knows the padding, and the order of a ring."""
        if isinstance(mask, mx.array) or (self.window_size is not None and length > 1):
            return mask
        if hasattr(cache, "make_mask"):
            return cache.make_mask(length, return_array=False, window_size=self.window_size)
        return None if length == 1 else "causal"

    def _heads(self, x: mx.array, heads: int, norm: str, offset: int | mx.array) -> mx.array:
        """Split (B, L, heads · head_dim) into (B, heads, L, head_dim), normalise and rotate."""
        x = x.reshape(*x.shape[:2], heads, -1)
        if norm in self:
            x = self[norm](x)
        x = x.transpose(0, 2, 1, 3)
        return x if self.rope is None else self.rope(x, offset)

    def _keys_values(self, x: mx.array, cache: Any, offset: int | mx.array) -> tuple[Any, Any, mx.array | None]:
        keys = self._heads(self.k_proj(x), self.num_kv_heads, "k_norm", offset)
        values = self.v_proj(x).reshape(*x.shape[:2], self.num_kv_heads, -1).transpose(0, 2, 1, 3)
        if cache is None:
            return keys, values, None
        keys, values = cache.update_and_fetch(keys, values)
        return keys, values, getattr(cache, "left_padding", None)

    def _attend(self, queries: mx.array, kv: tuple[Any, Any, mx.array | None], mask: Mask) -> mx.array:
        keys, values, left_padding = kv
        if isinstance(mask, mx.array) or (self.window_size is None and left_padding is None):
            return self._scores(queries, keys, values, mask)
        return banded_attention(queries, keys, values, self._scores, self.window_size, left_padding)

    def _scores(self, queries: mx.array, keys: Any, values: Any, mask: Mask) -> mx.array:
        if isinstance(keys, mx.array):
            return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask)
        # A quantised cache hands out (packed, scales, biases); its figures follow from the shapes.
        from mlx_lm.models.base import quantized_scaled_dot_product_attention

        packed, scales, _ = keys
        width = queries.shape[-1]
        return quantized_scaled_dot_product_attention(
            queries,
            keys,
            values,
            scale=self.scale,
            mask=mask,
            group_size=width // scales.shape[-1],
            bits=packed.shape[-1] * 32 // width,
        )


class SlidingWindowAttention(Attention):
    """Causal attention to the last `window_size` tokens, in time and memory linear in the length.

    Args:
        hidden_dim: Width D of the model.
        num_heads: Number of query heads.
        window_size: Tokens that a query sees, itself included.
        **options: As for `Attention`.
    """

    def __init__(self, hidden_dim: int, num_heads: int, window_size: int, **options: Any) -> None:
        super().__init__(hidden_dim, num_heads, window_size=window_size, **options)
