"""Multi-head latent attention (DeepSeek-AI, 2024, "DeepSeek-V2", section 2.1).

Keys and values of all heads are made out of one short vector per token, and that vector alone is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.mla import MultiLinear

from axon_compose.registry import Dims
from axon_core.elementary import sigmoid
from axon_core.indexer import Indexer, Selection
from axon_core.latent_forms import absorbed, chosen_tokens, expanded, in_blocks, plain
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.rope import RoPE, Turn
from axon_core.specs.latent_attention import LatentAttentionOptions, absorbs
from axon_core.temperature import LogScaling, query_gain
from axon_core.window import Mask

__all__ = ["LatentAttention"]


class LatentAttention(nn.Module):
    """Causal attention whose heads share one latent vector and one rotated key per token.

        q_nope, q_pe = q_b_proj(norm(q_a_proj(x)))            per head; or q_proj(x)
        latent, k_pe = kv_a_proj_with_mqa(x)                  one for all heads
        latent       = norm(latent)
        k_nope, v    = embed_q(latent), unembed_out(latent)   per head
        a            = softmax(scale * (q_nope · k_nope + rope(q_pe) · rope(k_pe))) v
        y            = o_proj(a * sigmoid(g_proj(x)))         or o_proj(a), without a gate

    The cache holds `latent` and `rope(k_pe)`: `kv_lora_rank + qk_rope_head_dim` numbers per token, however many heads.
    The score `q_nope · (W latent)` is `(Wᵀ q_nope) · latent`, so a few queries on a long context are taken to the
    latents (absorbed) and many queries have keys and values made for them (expanded), whichever multiplies less.

    With an `indexer`, or the choice of another layer's, each query attends to a part of the tokens. A single query then
    reads only what it chose; many are masked.

    With `kv_from`, `latent` and the rotated `k_pe` are those of another layer, out of its cache; `embed_q` and
    `unembed_out` are the layer's own. With `rope.learned`, the frequency of pair p is times `exp(rope_alpha_p)`; one
    layer may have the alphas for all (LeRoPE, as in Hugging Face's `MistralLarge4TextRotaryEmbedding`).

    With a `window_size` W, a query sees the last W tokens, and no more are kept. With `rope_key_norm`, `k_pe` is
    normalised before it is rotated (as in Hugging Face's `Dots3NoteTextAttention`). With `both_latents`, `q_b_proj` and
    `g_proj` read `[norm(z), z]` of `z = q_a_proj(x)` (as in its `AXK2Attention`).

    Args:
        hidden_size: Width D of the model.
        options: `LatentAttentionOptions`.
    """

    def __init__(self, hidden_size: int, options: LatentAttentionOptions) -> None:
        super().__init__()
        heads, bias = options.num_heads, options.bias
        self.num_heads = heads
        self.kv_lora_rank = options.kv_lora_rank
        self.qk_nope_head_dim = options.qk_nope_head_dim
        self.qk_rope_head_dim = options.qk_rope_head_dim
        self.v_head_dim = options.value_dim
        self.scale = options.softmax_scale
        self.q_lora_scale, self.kv_lora_scale = options.lora_scale.q, options.lora_scale.kv
        self.temperature, self.window_size = options.temperature, options.window_size
        self.reads_latents, self.both_latents = options.kv_from is not None, options.both_latents

        queries = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        if options.q_lora_rank is None:
            self.q_proj = Linear(hidden_size, queries, bias=False)
        else:
            self.q_a_proj = Linear(hidden_size, options.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(options.q_lora_rank, options.norm_eps)
            self.q_b_proj = Linear(options.query_width, queries, bias=False)
        if not self.reads_latents:
            self.kv_a_proj_with_mqa = Linear(hidden_size, self.kv_lora_rank + self.qk_rope_head_dim, bias=bias)
            self.kv_a_layernorm = RMSNorm(self.kv_lora_rank, options.norm_eps)
            if options.rope_key_norm:
                self.k_rope_layernorm = RMSNorm(self.qk_rope_head_dim, options.norm_eps)
        self.embed_q = MultiLinear(self.qk_nope_head_dim, self.kv_lora_rank, heads)
        self.unembed_out = MultiLinear(self.kv_lora_rank, self.v_head_dim, heads)
        self.o_proj = Linear(heads * self.v_head_dim, hidden_size, bias=bias)
        if options.gate is not None:
            read = options.query_width if options.both_latents else hidden_size
            self.g_proj = Linear(read, options.gate_dim, bias=False)
        if options.sinks:
            self.sinks = mx.zeros((heads,))
        if options.log_scaling:
            self.log_scaling = LogScaling(heads)
        self.rope = None if options.rope is None else RoPE(self.qk_rope_head_dim, options.rope)
        if options.own_alphas:
            self.rope_alpha = mx.zeros((options.own_alphas,))
        if options.own_indexer is not None:
            queries = options.q_lora_rank or hidden_size
            self.indexer = Indexer(hidden_size, queries, options.own_indexer, options.rope, self.qk_rope_head_dim)

    @classmethod
    def from_options(cls, options: LatentAttentionOptions, dims: Dims) -> LatentAttention:
        """Build from `LatentAttentionOptions`."""
        return cls(dims.hidden_size, options)

    def __call__(
        self,
        x: mx.array,
        mask: Mask | tuple[Mask, ...] = None,
        cache: Any = None,
        offset: int | mx.array | None = None,
        selection: Selection = (None, None),
        kv: tuple[Any, Any] | None = None,
        alphas: mx.array | None = None,
        publish: Callable[[str, Any], None] | None = None,
    ) -> tuple[mx.array, Any]:
        """Attend.

        Args:
            x: (B, L, D).
            mask: None or "causal" for the causal mask within the window, or a boolean array that broadcasts to
                (B, H, L, S) and is taken as it is. With an indexer, a pair of the same, for its two caches.
            cache: An mlx-lm cache, plain, batched or quantised, updated in place; or None. Its keys are the latents
                (B, 1, S, kv_lora_rank), its values the rotated keys (B, 1, S, qk_rope_head_dim). With an indexer, a
                `CacheList` of that and the indexer's own; with latents of another layer, the indexer's own alone.
            offset: Position of the first token, int or (B,); the cache's own, or 0, unless given.
            selection: Another layer's choice of tokens.
            kv: Another layer's latents and rotated keys of all S tokens, as its cache hands them out.
            alphas: Logarithms of factors of the rotary frequencies (pairs,), those of another layer.
            publish: Called with `("selection", …)`, the layer's choice; `("kv", …)`, what it attends to; and
                `("alphas", …)`, where frequencies are learned.

        Returns:
            The output (B, L, D), and `cache`.
        """
        kept, index_cache = self._caches(cache)
        counting = index_cache if kept is None else kept
        seen: Mask = mask[0] if isinstance(mask, tuple) else mask
        if offset is None:
            offset = 0 if counting is None else counting.offset
        seen = self._seen(seen, x.shape[1], counting)
        if "rope_alpha" in self:
            alphas = self.rope_alpha
        turn = None if alphas is None or self.rope is None else self.rope.learned(alphas, offset, x.shape[1])
        q_latent, q_source = self._query_latents(x)
        q_nope, q_pe = self._queries(q_source, offset, turn)
        if "indexer" in self:
            selection, held = self["indexer"](x, q_latent, seen, index_cache, offset, turn)
            q_nope = mx.depends(q_nope, held) if held else q_nope
        if kv is None:
            kv = self._latent(x, offset, turn)
            kv = kv if kept is None else tuple(kept.update_and_fetch(*kv))
        if publish is not None:
            publish("selection", selection)
            publish("kv", kv)
            publish("alphas", alphas)
        (latent, k_pe), (chosen, where) = kv, selection
        if chosen is not None:
            latent, k_pe, seen = chosen_tokens(latent, k_pe, chosen, where)
        y = self._attend(q_nope, q_pe, latent, k_pe, seen).transpose(0, 2, 1, 3)
        if "g_proj" in self:
            y = y * sigmoid(self["g_proj"](q_source if self.both_latents else x)).reshape(*y.shape[:3], -1)
        return self["o_proj"](y.flatten(2)), cache

    def _seen(self, mask: Mask, length: int, cache: Any) -> Mask:
        """What queries see where no array says it: the mask of the cache, which knows the padding, or the window's."""
        if isinstance(mask, mx.array):
            return mask
        if hasattr(cache, "make_mask"):
            return cache.make_mask(length, return_array=False, window_size=self.window_size)
        if self.window_size is not None and length > self.window_size:
            return create_causal_mask(length, window_size=self.window_size)
        return mask

    def _caches(self, cache: Any) -> tuple[Any, Any]:
        """What keeps latents, and what keeps the indexer's keys; None for either that the layer does not have."""
        if "indexer" not in self:
            return cache, None
        if self.reads_latents or cache is None:
            return None, cache
        return cache[0], cache[1]

    def _query_latents(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """What an indexer makes its queries of, and what queries are made of: (B, L, ·) of `x` (B, L, D)."""
        if "q_proj" in self:
            return x, x
        latent = self["q_a_proj"](x)
        normed = self["q_a_layernorm"](latent)
        return normed, mx.concatenate([normed, latent], axis=-1) if self.both_latents else normed

    def _queries(self, x: mx.array, offset: int | mx.array, turn: Turn | None = None) -> tuple[mx.array, mx.array]:
        """Per head: (B, H, L, qk_nope_head_dim), and (B, H, L, qk_rope_head_dim) rotated; both times the scale."""
        q = self["q_proj"](x) if "q_proj" in self else self["q_b_proj"](x)
        q = q.reshape(*x.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3) * (self.scale * self.q_lora_scale)
        if self.temperature is not None:
            q = q * query_gain(x.shape[1], offset, self.temperature).astype(q.dtype)
        if "log_scaling" in self:
            q = self["log_scaling"](q, offset)
        q_nope, q_pe = mx.split(q, [self.qk_nope_head_dim], axis=-1)
        return q_nope, self._rotated(q_pe, offset, turn)

    def _latent(self, x: mx.array, offset: int | mx.array, turn: Turn | None = None) -> tuple[mx.array, mx.array]:
        """For all heads: (B, 1, L, kv_lora_rank), and (B, 1, L, qk_rope_head_dim) rotated."""
        latent, k_pe = mx.split(self["kv_a_proj_with_mqa"](x)[:, None], [self.kv_lora_rank], axis=-1)
        latent = self["kv_a_layernorm"](latent)
        if self.kv_lora_scale != 1.0:
            latent = latent * self.kv_lora_scale
        if "k_rope_layernorm" in self:
            k_pe = self["k_rope_layernorm"](k_pe)
        return latent, self._rotated(k_pe, offset, turn)

    def _rotated(self, x: mx.array, offset: int | mx.array, turn: Turn | None = None) -> mx.array:
        rope = self.get("rope")
        return x if rope is None else rope(x, offset, turn)

    def _attend(self, q_nope: mx.array, q_pe: mx.array, latent: Any, k_pe: Any, mask: Mask) -> mx.array:
        """(B, H, L, v_head_dim), out of arrays or what a quantised cache hands out."""
        total = (latent if isinstance(latent, mx.array) else latent[0]).shape[2]
        sinks = self.get("sinks")
        if self._absorbs(q_nope.shape[2], total):
            form, queries = partial(absorbed, sinks=sinks), (self["embed_q"](q_nope), q_pe)
            return self["unembed_out"](in_blocks(form, queries, (latent, k_pe), total, mask, self.window_size))
        latent, k_pe = plain(latent, self.kv_lora_rank), plain(k_pe, self.qk_rope_head_dim)
        k_nope, values = self["embed_q"](latent, transpose=False), self["unembed_out"](latent)
        k_pe = mx.broadcast_to(k_pe, (*k_nope.shape[:3], self.qk_rope_head_dim))
        joined = mx.concatenate([q_nope, q_pe], axis=-1), mx.concatenate([k_nope, k_pe], axis=-1)
        return in_blocks(partial(expanded, sinks=sinks), joined[:1], (joined[1], values), total, mask, self.window_size)

    def _absorbs(self, length: int, total: int) -> bool:
        """Whether absorbing L queries multiplies less than expanding S keys and values."""
        return absorbs(length, total, self.kv_lora_rank, self.qk_nope_head_dim + self.v_head_dim)
