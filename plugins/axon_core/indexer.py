"""The lightning indexer of DeepSeek-V3.2 (DeepSeek-AI, 2025, section 2): which tokens each query attends to.

DeepSeek's own code multiplies queries and keys by a Hadamard matrix, which leaves their products as they are, and
rounds them to 8 bits for speed; neither is done here, as in Hugging Face's implementation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_core.linear import Linear
from axon_core.norms import LayerNorm
from axon_core.pools import Pools
from axon_core.rope import RoPE, Turn
from axon_core.selection import choose, places, store, visible
from axon_core.specs._indexer import IndexerOptions
from axon_core.specs._rope import RopeOptions
from axon_core.temperature import LogScaling
from axon_core.window import Mask

__all__ = ["Indexer", "Selection"]

#: Which keys a query attends to, (B, 1, L, S) booleans, None for all that it may see; and for a single query of each
#: row the places of the chosen ones, (B, 1, 1, top_k).
Selection = tuple[mx.array | None, mx.array | None]


class Indexer(nn.Module):
    """Scores every key for every query, and chooses the best.

        q, k     = rope(wq_b(latent)), rope(k_norm(wk(x)))              one key for all heads
        score_ts = sum over heads h of weights_proj(x_t)_h · relu(q_th · k_s) / sqrt(heads · head_dim)

    Options put a layer norm before `wq_b`, and scale queries by the logarithm of their position. With pools, keys are
    those of pools (`axon_core.pools`), and tokens are chosen pool by pool.

    Nothing is learned through the choice, so no gradient reaches the parameters and they are frozen; DeepSeek trains
    them towards the attention's own weights.

    Args:
        hidden_size: Width D of the model.
        query_size: Width of the latent that queries come out of.
        options: `IndexerOptions`.
        rope: Rotation of the attention's heads, None without.
        rope_dim: Width that is rotated.
    """

    def __init__(
        self, hidden_size: int, query_size: int, options: IndexerOptions, rope: RopeOptions | None, rope_dim: int
    ) -> None:
        super().__init__()
        self.num_heads, self.top_k, self.chosen = options.num_heads, options.top_k, options.chosen
        self.pool_size = options.pool_size
        self.wq_b = Linear(query_size, options.num_heads * options.head_dim, bias=False)
        self.wk = Linear(hidden_size, options.head_dim, bias=False)
        self.k_norm = LayerNorm(options.head_dim, options.norm_eps)
        self.weights_proj = Linear(hidden_size, options.num_heads, bias=False)
        if options.query_norm:
            self.q_norm = LayerNorm(query_size, options.norm_eps)
        if options.log_scaling:
            self.log_scaling = LogScaling(options.num_heads)
        if self.pool_size is not None:
            self.pool_gate = Linear(hidden_size, options.head_dim, bias=False)
            self.pool_bias = mx.zeros((self.pool_size, options.head_dim))
        self.rope = None
        if rope is not None:
            self.rope = RoPE(rope_dim, rope.model_copy(update={"traditional": options.traditional}))
        self.rope_last = options.rope_last
        self.cut = options.head_dim - rope_dim if options.rope_last else rope_dim
        self.scale = (options.num_heads * options.head_dim) ** -0.5
        self.freeze()

    def __call__(
        self,
        x: mx.array,
        latent: mx.array,
        mask: Mask,
        cache: Any,
        offset: int | mx.array,
        turn: Turn | None = None,
    ) -> tuple[Selection, list[mx.array]]:
        """Choose.

        Args:
            x: (B, L, D).
            latent: What queries come out of, (B, L, query_size).
            mask: What may be seen, as for the attention.
            cache: An mlx-lm cache of keys (B, 1, S, head_dim) and of what `pool_gate` gives, or values without width,
                updated in place; or None.
            offset: Position of the first token, int or (B,).
            turn: The rotation where its frequencies are learned (see `RoPE.learned`).

        Returns:
            The selection, and arrays that have to be computed with the layer's output.
        """
        x, latent = mx.stop_gradient(x), mx.stop_gradient(latent)
        turn = None if turn is None else (mx.stop_gradient(turn[0]), mx.stop_gradient(turn[1]))
        keys, gates, held = self._keys(x, cache, offset, turn)
        length, total = x.shape[1], keys.shape[2]
        if total <= self.chosen:
            return (None, None), held
        queries = self._queries(latent, offset, turn)
        weights = self.weights_proj(x).astype(mx.float32) * self.scale
        seen = partial(visible, mask, length=length, total=total)
        if self.pool_size is None or gates is None:
            selected = choose(queries, keys, weights, seen, self.top_k)
        else:
            pools = Pools(self.pool_size, length, total, getattr(cache, "left_padding", None))
            pooled = pools.keys(keys, gates, self.pool_bias)
            selected = choose(queries, pooled, weights, pools.complete, self.top_k // self.pool_size)
            selected = pools.tokens(selected, seen(0, length))
        return (selected, places(selected, self.chosen) if length == 1 else None), held

    def _queries(self, latent: mx.array, offset: int | mx.array, turn: Turn | None) -> mx.array:
        """(B, H, L, head_dim)."""
        if "q_norm" in self:
            latent = self.q_norm(latent)
        queries = self.wq_b(latent).reshape(*latent.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3)
        if "log_scaling" in self:
            queries = self.log_scaling(queries, offset)
        return self._turned(queries, offset, turn)

    def _keys(
        self, x: mx.array, cache: Any, offset: int | mx.array, turn: Turn | None
    ) -> tuple[mx.array, mx.array | None, list[mx.array]]:
        """Of all tokens, (B, 1, S, head_dim); with pools what their weights are made of; what has to be computed."""
        keys = self._turned(self.k_norm(self.wk(x))[:, None], offset, turn)
        if self.pool_size is None:
            keys, held = store(cache, keys)
            return keys, None, held
        gates = self.pool_gate(x)[:, None]
        if cache is not None:
            keys, gates = cache.update_and_fetch(keys, gates)
        return keys, gates, [keys, gates]

    def _turned(self, x: mx.array, offset: int | mx.array, turn: Turn | None) -> mx.array:
        """Rotate a part of each head, (B, heads, L, head_dim)."""
        if self.rope is None:
            return x
        first, last = mx.split(x, [self.cut], axis=-1)
        pair = [first, self.rope(last, offset, turn)] if self.rope_last else [self.rope(first, offset, turn), last]
        return mx.concatenate(pair, axis=-1)
