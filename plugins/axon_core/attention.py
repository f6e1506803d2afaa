"""Causal softmax attention: grouped-query, with rotary positions, over everything before or within a window."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.block_indexer import BlockIndexer, Choice
from axon_core.chunked_attention import chunked_attention
from axon_core.elementary import sigmoid
from axon_core.few_tokens import attention_of_one, heads_of_one, inherits
from axon_core.linear import Linear
from axon_core.mean_indexer import MeanIndexer
from axon_core.norms import HeadNorm, RMSNorm
from axon_core.relative import Relative
from axon_core.rope import RoPE
from axon_core.scores import attend, causal_attention
from axon_core.slopes import slopes
from axon_core.specs._indexer import BlockIndexerOptions
from axon_core.specs.attention import (
    ALiBiOptions,
    BiasOptions,
    GateActivationName,
    GateName,
    HeadNormOptions,
    RelativeOptions,
    RopeOptions,
    TemperatureOptions,
    VNormOptions,
)
from axon_core.temperature import LogScaling, query_gain
from axon_core.window import Mask, by_block

__all__ = ["Attention", "SlidingWindowAttention"]

#: What queries, keys or values pass through beside a projection and a rotation.
_MORE: Final = frozenset(("v_norm", "head_gain", "r_proj", "log_scaling"))
#: What scores and outputs pass through beside a softmax and a projection.
_BEHIND: Final = frozenset(("indexer", "g_proj", "output_norm", "profiles"))
#: The methods that make them.
_STEPS: Final = ("_projected", "_heads", "_by_head", "_turned", "_queries", "_keys_values", "_kept")
#: Those that make the output of them.
_LAST_STEPS: Final = ("__call__", "_default_mask", "_with_earlier", "_output", "_attend")


class Attention(nn.Module):
    """Causal attention, with rotary positions (RoPE) where `rope` is given.

    Args:
        hidden_dim: Width D of the model.
        num_heads: Number of query heads.
        num_kv_heads: Number of key/value heads, a divisor of `num_heads`; as many unless given.
        head_dim: Width of a head; `hidden_dim // num_heads` unless given.
        v_head_dim: Width of a head's value; `head_dim` unless given.
        bias: Biases of the projections, all or a choice.
        rope: Rotary position embedding, none unless given.
        qk_norm: Norm of queries and keys.
        k_norm_scale: Whether the scale of the keys' norm multiplies `keys`, or `queries` instead.
        v_norm: RMS norm of each head's values, without weights.
        k_eq_v: Whether values are the projected keys, before norm and rotation (Gemma 4); there is no `v_proj`.
        clip: Bound of what the projections of queries, keys and values give; none unless given.
        input_scale: Factor of the input.
        key_scale: Factor of what the projection of keys gives.
        value_scale: Factor of values, before their norm.
        window_size: Tokens that a query sees, itself included; all unless given.
        chunk_size: Tokens of a chunk, which see each other alone; one chunk unless given.
        scale: Factor of the scores; `head_dim ** -0.5` unless given.
        softcap: Bound of the scores, `softcap * tanh(scores / softcap)` in float32; none unless given.
        temperature: Factor of queries that grows with their position; none unless given.
        alibi: Scores that fall with the distance of the key, by a fixed slope of each head; none unless given.
        relative: Scores by the distance of the key: learned profiles, which each query of each head mixes by a
            projection of the input, and which factors by position multiply too; none unless given.
        sinks: Whether each head has a learned score that takes part in the softmax and has no value.
        gate: Whether a sigmoid of a projection of the input multiplies the output, one for each of its dimensions or
            one for each head; no gate unless given.
        gate_activation: `sigmoid`, or `softplus` instead.
        output_norm: RMS norm of each head's output, before the gate, without weights; none unless given.
        head_gain: Whether each head's queries have a learned factor, after norm and rotation.
        log_scaling: Whether it is learned how that factor grows with the logarithm of the position.
        kv_from: Set on a layer that reads the keys and values of another one: it has no projections for them.
        indexer: Choice of the blocks of keys that a query attends to; all unless given.
        shard: For heads that are split over devices: which of them these are; all unless given.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        v_head_dim: int | None = None,
        bias: bool | BiasOptions = False,
        rope: RopeOptions | None = None,
        qk_norm: HeadNormOptions | None = None,
        k_norm_scale: str = "keys",
        v_norm: VNormOptions | None = None,
        k_eq_v: bool = False,
        clip: float | None = None,
        input_scale: float = 1.0,
        key_scale: float = 1.0,
        value_scale: float = 1.0,
        window_size: int | None = None,
        chunk_size: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        temperature: TemperatureOptions | None = None,
        alibi: ALiBiOptions | None = None,
        relative: RelativeOptions | None = None,
        sinks: bool = False,
        gate: GateName | None = None,
        gate_activation: GateActivationName = "sigmoid",
        output_norm: VNormOptions | None = None,
        head_gain: bool = False,
        log_scaling: bool = False,
        kv_from: str | None = None,
        indexer: BlockIndexerOptions | None = None,
        shard: Shard = Shard(),
    ) -> None:
        super().__init__()
        head_dim = head_dim or hidden_dim // num_heads
        value_dim = v_head_dim or head_dim
        if isinstance(bias, bool):
            bias = BiasOptions(q=bias, k=bias, v=bias, o=bias)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads = num_kv_heads or num_heads
        self.window_size, self.clip, self.softcap = window_size, clip, softcap
        self.gate_activation = gate_activation
        self.temperature, self.chunk_size = temperature, chunk_size
        self.input_scale, self.key_scale, self.value_scale = input_scale, key_scale, value_scale
        self.scale = scale or head_dim**-0.5
        self._slopes = None if alibi is None else alibi.scale * mx.array(slopes(num_heads, shard))

        self.q_proj = Linear(hidden_dim, num_heads * head_dim, bias=bias.q)
        if kv_from is None:
            self.k_proj = Linear(hidden_dim, num_kv_heads * head_dim, bias=bias.k)
            if not k_eq_v:
                self.v_proj = Linear(hidden_dim, num_kv_heads * value_dim, bias=bias.v)
        self.o_proj = Linear(num_heads * value_dim, hidden_dim, bias=bias.o)
        if gate is not None:
            self.g_proj = Linear(hidden_dim, num_heads * (1 if gate == "head" else value_dim), bias=bias.g)
        if relative is not None:
            self._add_relative(hidden_dim, relative)
        self._add_numbers_of_heads(sinks, head_gain, log_scaling)
        if output_norm is not None:
            self.output_norm = RMSNorm(value_dim, output_norm.eps, weight=False)
        self.norm_after_rope = qk_norm is not None and qk_norm.when == "after_rope"
        self.scales_queries = k_norm_scale == "queries"
        if qk_norm is not None:
            self.q_norm = HeadNorm(num_heads, head_dim, qk_norm, shard=shard)
            if kv_from is None or self.scales_queries:
                self.k_norm = HeadNorm(num_kv_heads, head_dim, qk_norm, self.scales_queries, shard)
        if v_norm is not None and kv_from is None:
            self.v_norm = RMSNorm(value_dim, v_norm.eps, weight=False)
        self.rope = None if rope is None else RoPE(head_dim, rope)
        if indexer is not None:
            make = MeanIndexer if indexer.pooling == "mean" else BlockIndexer
            self.indexer = make(hidden_dim, indexer, rope and rope.with_dims(head_dim))

    def _add_relative(self, hidden_dim: int, relative: RelativeOptions) -> None:
        """Scores by distance: the profiles, and what mixes them."""
        self.r_proj = Linear(hidden_dim, self.num_heads * relative.rank, bias=False)
        self.profiles = 0.02 * mx.random.normal((relative.rank, relative.extent))

    def _add_numbers_of_heads(self, sinks: bool, head_gain: bool, log_scaling: bool) -> None:
        if sinks:
            self.sinks = mx.zeros((self.num_heads,))
        if head_gain:
            self.head_gain = mx.ones((self.num_heads,))
        if log_scaling:
            self.log_scaling = LogScaling(self.num_heads)

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> Attention:
        """Build from `AttentionOptions`."""
        return cls(dims.hidden_size, **dict(options), shard=dims.shard)

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
            mask: None for the causal mask within the window, or a boolean array that broadcasts to (B, H, L, S) and
                is taken as it is. "causal" is the same as None. With an indexer, a pair of them, for its two caches.
            cache: An mlx-lm cache of keys and values, updated in place, or None; with an indexer, a `CacheList` of that
                and the indexer's own.
            offset: Position of the first token, int or (B,); the cache's own, or 0, unless given.
            kv: Published keys, values and left padding of another layer, used instead of own ones.
            publish: Called with `("kv", (keys, values, left padding or None))`, keys and values over all S tokens.

        Returns:
            The output (B, L, D), and `cache`.
        """
        if kv is None and publish is None and (y := attention_of_one(self, x, mask, cache, offset)) is not None:
            return y, cache
        kept, index_cache = (cache[0], cache[1]) if "indexer" in self and cache is not None else (cache, None)
        if offset is None:
            offset = 0 if kept is None else kept.offset
        mask = self._default_mask(mask[0] if isinstance(mask, tuple) else mask, kept, x.shape[1])
        if self.input_scale != 1.0:
            x = x * self.input_scale
        heads = heads_of_one(self, x, offset) if kv is None else None
        queries, blocks = self._queries(x, offset) if heads is None else heads[0], None
        if "indexer" in self:
            blocks, held = self["indexer"](x, mask, index_cache, offset)
            queries = mx.depends(queries, held) if held else queries
        if kv is None:
            kv = self._keys_values(x, kept, offset) if heads is None else self._with_earlier(heads[1], heads[2], kept)
        if publish is not None:
            publish("kv", kv)
        return self._output(x, queries, kv, mask, offset, kept, blocks), cache

    def residual(
        self,
        norm: nn.Module | None,
        x: mx.array,
        mask: Mask | tuple[Mask, ...] = None,
        cache: Any = None,
        offset: int | mx.array | None = None,
        kv: tuple[Any, Any, mx.array | None] | None = None,
    ) -> mx.array | None:
        """`x` and what it makes of `norm(x)`, in few operations; None where it is to be computed in steps."""
        return attention_of_one(self, x, mask, cache, offset, norm, adds=True) if kv is None else None

    def is_plain(self) -> bool:
        """Whether queries, keys and values are projections, normalised and rotated, as it now stands."""
        scaled = self.clip is not None or self.key_scale != 1.0 or self.value_scale != 1.0
        if scaled or self.temperature is not None or not _MORE.isdisjoint(self.keys()) or "v_proj" not in self:
            return False
        if self.norm_after_rope or self.scales_queries:
            return False
        return type(self.get("rope")) in (RoPE, type(None)) and inherits(self, Attention, *_STEPS)

    def is_plain_output(self) -> bool:
        """Whether the output is projected of what heads give, by a softmax of their scaled scores, as it now stands."""
        more = self.softcap is not None or self.chunk_size is not None or self._slopes is not None
        if more or self.input_scale != 1.0 or not _BEHIND.isdisjoint(self.keys()):
            return False
        return inherits(self, Attention, *_LAST_STEPS)

    def _output(
        self,
        x: mx.array,
        queries: mx.array,
        kv: tuple[Any, Any, mx.array | None],
        mask: Mask,
        offset: int | mx.array,
        cache: Any,
        blocks: Choice | None = None,
    ) -> mx.array:
        """(B, L, D), of queries and of the keys and values that the cache holds by now."""
        if self.chunk_size is not None:
            y = chunked_attention(queries, kv, mask, self._attend, self.chunk_size, offset)
        else:
            y = self._attend(queries, kv, mask, blocks, self._newest(cache, x.shape[1]))
        if y.shape[2] == 1 and "output_norm" not in self and "g_proj" not in self:
            return self["o_proj"](y.reshape(y.shape[0], 1, -1))
        y = y.transpose(0, 2, 1, 3)
        if "output_norm" in self:
            y = self["output_norm"](y)
        if "g_proj" in self:
            y = y * self._gate(self["g_proj"](x)).reshape(*y.shape[:3], -1)
        return self["o_proj"](y.flatten(2))

    def _newest(self, cache: Any, length: int) -> int | None:
        """Where the key of a single query is in mlx-lm's rings; None where it is the last one, or nobody asks."""
        end = getattr(cache, "_idx", None)
        return None if end is None or length > 1 or "profiles" not in self else end - 1

    def _gate(self, x: mx.array) -> mx.array:
        if self.gate_activation == "sigmoid":
            return sigmoid(x)
        return nn.softplus(x.astype(mx.float32)).astype(x.dtype)

    def _default_mask(self, mask: Mask, cache: Any, length: int) -> Mask:
        """What to ask of the cache before its update: only it knows the padding, and the order of a ring."""
        if isinstance(mask, mx.array) or (self.window_size is not None and length > 1):
            return mask
        if hasattr(cache, "make_mask"):
            return cache.make_mask(length, return_array=False, window_size=self.window_size)
        return None if length == 1 else "causal"

    def _projected(self, name: str, x: mx.array) -> mx.array:
        """Project (B, L, D) to (B, L, heads * width of a head)."""
        x = self[f"{name}_proj"](x)
        if name == "k" and self.key_scale != 1.0:
            x = x * self.key_scale
        if self.clip is not None:
            x = mx.clip(x, -self.clip, self.clip)
        return x

    def _heads(self, name: str, x: mx.array) -> mx.array:
        """(B, L, heads * width of a head) as (B, L, heads, width)."""
        return x.reshape(*x.shape[:2], self.num_heads if name == "q" else self.num_kv_heads, -1)

    def _by_head(self, name: str, x: mx.array, norm: nn.Module | None) -> mx.array:
        """(B, L, heads * width of a head) as (B, heads, L, width), normalised if there is a norm."""
        if norm is not None:
            return norm(self._heads(name, x)).transpose(0, 2, 1, 3)
        if x.shape[1] == 1:  # nothing to swap
            return x.reshape(x.shape[0], self.num_heads if name == "q" else self.num_kv_heads, 1, -1)
        return self._heads(name, x).transpose(0, 2, 1, 3)

    def _turned(self, name: str, x: mx.array, offset: int | mx.array) -> mx.array:
        """Normalise and rotate (B, L, heads * head_dim) into (B, heads, L, head_dim)."""
        rope, norm = self.get("rope"), self.get(f"{name}_norm")
        x = self._by_head(name, x, None if self.norm_after_rope else norm)
        if rope is not None:
            x = rope(x, offset)
        if norm is not None and self.norm_after_rope:
            x = norm(x.swapaxes(1, 2)).swapaxes(1, 2)
        return x

    def _queries(self, x: mx.array, offset: int | mx.array) -> mx.array:
        """(B, heads, L, head_dim), normalised, rotated and with all factors but `scale`.

        With relative scores each is followed by its mixture of profiles, which factors by position multiply too.
        """
        queries = self._turned("q", self._projected("q", x), offset)
        if self.scales_queries:
            queries = self["k_norm"].scaled(queries)
        if "head_gain" in self:
            queries = queries * self["head_gain"].astype(x.dtype)[:, None, None]
        if "r_proj" in self:
            mixtures = mx.unflatten(self["r_proj"](x), -1, (self.num_heads, -1)).transpose(0, 2, 1, 3)
            queries = mx.concatenate([queries, mixtures], axis=-1)
        if self.temperature is not None:
            queries = queries * query_gain(x.shape[1], offset, self.temperature).astype(x.dtype)
        return self["log_scaling"](queries, offset) if "log_scaling" in self else queries

    def _keys_values(self, x: mx.array, cache: Any, offset: int | mx.array) -> tuple[Any, Any, mx.array | None]:
        projected = self._projected("k", x)
        values = self._projected("v", x) if "v_proj" in self else projected
        return self._kept(projected, values, cache, offset)

    def _kept(
        self, projected: mx.array, values: mx.array, cache: Any, offset: int | mx.array
    ) -> tuple[Any, Any, mx.array | None]:
        """Keys and values of all tokens, out of the projected ones of these, each (B, L, heads * width)."""
        keys = self._turned("k", projected, offset)
        if self.value_scale != 1.0:
            values = values * self.value_scale
        return self._with_earlier(keys, self._by_head("v", values, self.get("v_norm")), cache)

    def _with_earlier(self, keys: mx.array, values: mx.array, cache: Any) -> tuple[Any, Any, mx.array | None]:
        """Keys and values of all tokens, out of those of these, each (B, heads, L, width)."""
        if cache is None:
            return keys, values, None
        keys, values = cache.update_and_fetch(keys, values)
        return keys, values, getattr(cache, "left_padding", None)

    def _attend(
        self,
        queries: mx.array,
        kv: tuple[Any, Any, mx.array | None],
        mask: Mask,
        blocks: Choice | None = None,
        newest: int | None = None,
    ) -> mx.array:
        keys, values, left_padding = kv
        options: dict[str, Any] = {"scale": self.scale, "softcap": self.softcap, "slopes": self._slopes}
        if "sinks" in self:
            options["sinks"] = self["sinks"]
        if "profiles" in self:
            options["relative"] = Relative(self["profiles"], newest)
        if blocks is not None:
            return _by_choice(queries, keys, values, partial(attend, **options), blocks)
        options |= {"window": self.window_size, "left_padding": left_padding}
        return causal_attention(queries, keys, values, mask, **options)


def _by_choice(
    queries: mx.array, keys: mx.array, values: mx.array, scores: Callable[..., mx.array], blocks: Choice
) -> mx.array:
    """Attention to chosen blocks: those alone for a single query, else all keys under a mask."""
    heads = queries.shape[1]
    if queries.shape[2] == 1 and keys.shape[1] % blocks.groups == 0:
        keys, values, mask = blocks.read(keys, values, heads)
        return scores(queries, keys, values, mask)
    return by_block(queries, lambda block, start, stop: scores(block, keys, values, blocks.mask_of(start, stop, heads)))


class SlidingWindowAttention(Attention):
    """Causal attention to the last `window_size` tokens, without positions (NoPE) unless `rope` is given.

    Time and memory are linear in the length.

    Args:
        hidden_dim: Width D of the model.
        num_heads: Number of query heads.
        window_size: Tokens that a query sees, itself included.
        **options: As for `Attention`.
    """

    def __init__(self, hidden_dim: int, num_heads: int, window_size: int, **options: Any) -> None:
        super().__init__(hidden_dim, num_heads, window_size=window_size, **options)
