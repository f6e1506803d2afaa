"""The block indexer of Qwen4 (Qwen, 2026): blocks of keys are chosen by the mean of an indexer's keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from axon_core.block_indexer import BlockIndexer, Choice
from axon_core.pools import Pools
from axon_core.rope import RoPE
from axon_core.selection import choose, places, store, visible
from axon_core.specs._indexer import BlockIndexerOptions
from axon_core.specs._rope import RopeOptions
from axon_core.window import Mask

__all__ = ["MeanIndexer", "Means"]


class MeanIndexer(BlockIndexer):
    r"""Scores every full block for every query, and chooses the best for all heads together.

        q_t      = rope(q_norm(q_proj(x_t)))
        k_b      = rope(k_norm(mean over the tokens s of block b of k_proj(x_s)))       at the block's first token
        score_tb = sum over heads h of relu(q_th · k_b)

    The tokens after the last block that is full with the query's own are attended to as well. Blocks are counted from
    the first token of each sequence, whatever padding is before it. No gradient reaches the parameters, so they are
    frozen. (Hugging Face's `Qwen4ExpTextQSAIndexer`; scores there have a factor, which changes no choice.)

    Args:
        hidden_size: Width D of the model.
        options: `BlockIndexerOptions` with `pooling: mean`.
        rope: Rotation of as many dimensions as in the attention's heads, None without.
    """

    def __init__(self, hidden_size: int, options: BlockIndexerOptions, rope: RopeOptions | None) -> None:
        super().__init__(hidden_size, options, rope)
        self.block_rope = None if rope is None else RoPE(options.head_dim, rope, options.block_size)

    def __call__(
        self, x: mx.array, mask: Mask, cache: Any, offset: int | mx.array
    ) -> tuple[Choice | None, list[mx.array]]:
        """Make ready to choose; arguments and result as of `BlockIndexer`. The cache holds what `k_proj` gives."""
        x = mx.stop_gradient(x)
        keys, held = store(cache, self.k_proj(x)[:, None])
        if keys.shape[2] <= self.options.chosen:
            return None, held
        pools = Pools(self.options.block_size, x.shape[1], keys.shape[2], getattr(cache, "left_padding", None))
        means = self._normed("k", pools.means(keys).swapaxes(1, 2))
        means = means if self.block_rope is None else self.block_rope(means)
        return Means(self.options, pools, self._heads("q", x, offset), means, mask), held


@dataclass(frozen=True)
class Means:
    """The choice of some queries, made for a part of them at a time; as `Blocks`, but one for all heads.

    Attributes:
        options: `BlockIndexerOptions`.
        pools: The blocks.
        queries: (B, H, L, head_dim).
        keys: Of blocks, (B, 1, S // block_size, head_dim).
        mask: What may be seen.
    """

    options: BlockIndexerOptions
    pools: Pools
    queries: mx.array
    keys: mx.array
    mask: Mask

    @property
    def groups(self) -> int:
        """One choice."""
        return 1

    def mask_of(self, start: int, stop: int, heads: int) -> mx.array:
        """Which keys the queries from `start` to `stop` attend to, (B, 1, stop - start, S)."""
        queries = self.queries[:, :, start:stop]
        weights = mx.ones((queries.shape[0], queries.shape[2], queries.shape[1]))
        blocks = choose(
            queries, self.keys, weights, lambda a, b: self.pools.complete(start + a, start + b), self.options.top_k
        )
        seen = visible(self.mask, start, stop, self.pools.length, self.pools.total)
        return self.pools.tokens(blocks, seen, start)

    def read(self, keys: mx.array, values: mx.array, heads: int) -> tuple[mx.array, mx.array, mx.array]:
        """For a single query, the chosen ones of (B, G, S, width) keys and values, and which of them it sees."""
        chosen = self.mask_of(0, 1, heads)
        index = places(chosen, self.options.chosen)
        rows = index.swapaxes(-1, -2)
        keys, values = (mx.take_along_axis(a, rows, axis=2) for a in (keys, values))
        return keys, values, mx.take_along_axis(chosen, index, axis=-1)
