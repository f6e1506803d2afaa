"""Embeddings of the last few tokens together, in hashed tables (Meituan, 2026, LongCat-Flash-Lite)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.conv import last_inputs
from axon_core.linear import Embedding, Linear
from axon_core.ngrams import last_tokens
from axon_core.specs.ngram_embedding import NGramEmbeddingOptions
from axon_core.states import read_states, write_states

__all__ = ["NGramEmbedding"]


class NGramEmbedding(nn.Module):
    """The mean of a token's vector and those of the groups of tokens that end with it.

        row = (t + V · t₋₁ + V² · t₋₂ + …) mod rows         V tokens in all, 0 before the first one of the text
        y   = (x + sum over all tables of post_proj(embedder[row])) / (1 + number of tables)

    Tables have unlike numbers of rows, so that groups that fall on one row of a table differ in the next.

    Args:
        hidden_size: Width D of the model.
        vocab_size: V.
        options: `NGramEmbeddingOptions`.
        shard: For rows of tables that are split over devices, which sum what they look up.
    """

    def __init__(
        self, hidden_size: int, vocab_size: int, options: NGramEmbeddingOptions, shard: Shard = Shard()
    ) -> None:
        super().__init__()
        self.options, self._shard = options, shard
        width = options.row(hidden_size)
        self.embedders = [Embedding(rows, width) for rows in options.sizes]
        self.post_projs = [Linear(width, hidden_size, bias=False) for _ in options.sizes]
        #: Powers of V in the arithmetic of each table, so that products stay within 64 bits.
        self._powers = [[pow(vocab_size, k, rows) for k in range(options.longest)] for rows in options.sizes]

    @classmethod
    def from_options(cls, options: NGramEmbeddingOptions, dims: Dims) -> NGramEmbedding:
        """Build from `NGramEmbeddingOptions`."""
        return cls(dims.hidden_size, dims.vocab_size, options, dims.shard)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, cache: Any = None, *, tokens: mx.array
    ) -> tuple[mx.array, Any]:
        """Look up.

        Args:
            x: The tokens' own vectors, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, or mlx-lm's `ArraysCache(1)`, which is updated: it holds the last tokens, as numbers.
            tokens: (B, L) integers.

        Returns:
            (B, L, D), and the cache.
        """
        batch, length = tokens.shape
        before = self.options.longest - 1
        (state,), mask = read_states(cache, mask, length, count=1)
        seen = tokens.astype(mx.float32)[..., None]
        if mask is not None:
            seen = mx.where(mask[..., None], seen, 0.0)
        old = mx.zeros((batch, before, 1), mx.float32) if state is None else state
        window = mx.concatenate([old, seen], axis=1)
        ids = window[..., 0].astype(mx.int64)
        shifted = last_tokens(ids, length, self.options.longest, self.options.eos, missing=0)
        alone = self._shard.size == 1
        y = x if alone else mx.zeros_like(x)
        tables = zip(self.embedders, self.post_projs, self.options.sizes, self._powers, strict=True)
        for index, (embedder, project, rows, powers) in enumerate(tables):
            group = index // self.options.tables + 2
            row = shifted[0]
            for back in range(1, group):
                row = row + shifted[back] * powers[back]
            y = y + project(embedder(row % rows))
        y = y if alone else x + self._shard.sum(y)
        y = y / (1 + len(self.embedders))
        return y, write_states(cache, [last_inputs(window, mask, before)], length)
