"""The block indexer of MiniMax-M3 (MiniMax, 2026): which blocks of keys each query attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from axon_core.linear import Linear
from axon_core.norms import HeadNorm
from axon_core.rope import RoPE
from axon_core.selection import best, places, positions, store, visible
from axon_core.specs._indexer import BlockIndexerOptions
from axon_core.specs._rope import RopeOptions
from axon_core.window import Mask

__all__ = ["BlockIndexer", "Blocks", "Choice"]


class Choice(Protocol):
    """Which blocks of keys some queries attend to."""

    @property
    def groups(self) -> int:
        """Choices of a query, each for an equal part of the attention's heads."""

    def mask_of(self, start: int, stop: int, heads: int) -> mx.array:
        """Which keys the queries from `start` to `stop` attend to, (B, heads or 1, stop - start, S)."""

    def read(self, keys: mx.array, values: mx.array, heads: int) -> tuple[mx.array, mx.array, mx.array]:
        """For a single query, the chosen ones of (B, G, S, width) keys and values, and which of them it sees."""


class BlockIndexer(nn.Module):
    """Scores every key for every query, and chooses the blocks with the best of them.

        q, k        = rope(q_norm(q_proj(x))), rope(k_norm(k_proj(x)))      one key for all heads
        score_htb   = max over keys s of block b, not after t, of q_th · k_s

    Every head chooses for an equal part of the attention's heads. Blocks are counted from the first token of each
    sequence, whatever padding is before it. No gradient reaches the parameters, so they are frozen.

    Args:
        hidden_size: Width D of the model.
        options: `BlockIndexerOptions`.
        rope: Rotation of as many dimensions as in the attention's heads, None without.
    """

    def __init__(self, hidden_size: int, options: BlockIndexerOptions, rope: RopeOptions | None) -> None:
        super().__init__()
        self.options = options
        self.q_proj = Linear(hidden_size, options.num_heads * options.head_dim, bias=False)
        self.k_proj = Linear(hidden_size, options.head_dim, bias=False)
        if options.norm is not None:
            self.q_norm = HeadNorm(options.num_heads, options.head_dim, options.norm)
            self.k_norm = HeadNorm(1, options.head_dim, options.norm)
        self.rope = None if rope is None else RoPE(options.head_dim, rope)
        self.freeze()

    def __call__(
        self, x: mx.array, mask: Mask, cache: Any, offset: int | mx.array
    ) -> tuple[Choice | None, list[mx.array]]:
        """Make ready to choose.

        Args:
            x: (B, L, D).
            mask: What may be seen, as for the attention.
            cache: An mlx-lm cache of keys (B, 1, S, head_dim) and values without width, updated in place; or None.
            offset: Position of the first token, int or (B,).

        Returns:
            What chooses, None where every block is chosen; and arrays that have to be computed with the layer's output.
        """
        x = mx.stop_gradient(x)
        keys, held = store(cache, self._heads("k", x, offset))
        if keys.shape[2] <= self.options.chosen:
            return None, held
        queries = self._heads("q", x, offset).astype(mx.float32)
        keys = keys.astype(mx.float32)
        return Blocks(self.options, queries, keys, mask, getattr(cache, "left_padding", None)), held

    def _heads(self, name: str, x: mx.array, offset: int | mx.array) -> mx.array:
        """(B, heads, L, head_dim), normalised and rotated."""
        x = self[f"{name}_proj"](x).reshape(*x.shape[:2], -1, self.options.head_dim)
        x = self._normed(name, x)
        return x if self.rope is None else self.rope(x, offset)

    def _normed(self, name: str, x: mx.array) -> mx.array:
        """(B, L, heads, head_dim) as (B, heads, L, head_dim)."""
        return (self[f"{name}_norm"](x) if f"{name}_norm" in self else x).transpose(0, 2, 1, 3)


@dataclass(frozen=True)
class Blocks:
    """The choice of some queries, made for a part of them at a time.

    Attributes:
        options: `BlockIndexerOptions`.
        queries: (B, G, L, head_dim), float32.
        keys: (B, 1, S, head_dim), float32.
        mask: What may be seen.
        left_padding: (B,) places before each sequence's first token, None without.
    """

    options: BlockIndexerOptions
    queries: mx.array
    keys: mx.array
    mask: Mask
    left_padding: mx.array | None

    @property
    def groups(self) -> int:
        """Choices of a query, each for an equal part of the attention's heads."""
        return self.queries.shape[1]

    def mask_of(self, start: int, stop: int, heads: int) -> mx.array:
        """Which keys the queries from `start` to `stop` attend to, (B, heads, stop - start, S)."""
        return self._mask(self._chosen(start, stop), start, stop, heads)

    def _mask(self, chosen: mx.array, start: int, stop: int, heads: int) -> mx.array:
        total = self.keys.shape[2]
        block = positions(mx.arange(total), self.left_padding)[:, None, None] // self.options.block_size
        index = mx.broadcast_to(mx.maximum(block, 0), (*chosen.shape[:3], total))
        keep = mx.take_along_axis(chosen, index, axis=-1)
        seen = visible(self.mask, start, stop, self.queries.shape[2], total)
        keep = keep if seen is None else keep & seen
        return mx.repeat(keep, heads // keep.shape[1], axis=1)

    def read(self, keys: mx.array, values: mx.array, heads: int) -> tuple[mx.array, mx.array, mx.array]:
        """For a single query, the chosen blocks of (B, G, S, width) keys and values, and which of them it sees."""
        size, total, groups = self.options.block_size, self.keys.shape[2], keys.shape[1]
        chosen = self._chosen(0, 1)
        blocks = places(chosen[:, :, 0], self.options.top_k)  # (B, heads that choose, top_k)
        blocks = mx.repeat(blocks, groups // blocks.shape[1], axis=1)
        index = (blocks[..., None] * size + mx.arange(size)).flatten(-2)
        if self.left_padding is not None:
            index = index + self.left_padding[:, None, None]
        inside = mx.minimum(index, total - 1)
        keys, values = (mx.take_along_axis(a, inside[..., None], axis=2) for a in (keys, values))
        seen = mx.take_along_axis(self._mask(chosen, 0, 1, groups)[:, :, 0], inside, axis=-1) & (index < total)
        return keys, values, mx.repeat(seen[:, :, None], heads // groups, axis=1)

    def _chosen(self, start: int, stop: int) -> mx.array:
        """(B, G, stop - start, blocks)."""
        options, size = self.options, self.options.block_size
        length, total = self.queries.shape[2], self.keys.shape[2]
        scores = self.queries[:, :, start:stop] @ self.keys.swapaxes(-1, -2)
        seen = visible(self.mask, start, stop, length, total)
        scores = scores if seen is None else mx.where(seen, scores, -mx.inf)
        if self.left_padding is not None:  # move each row to its first token; what is behind its last is not there
            index = mx.arange(total) + self.left_padding[:, None]
            there = (index < total)[:, None, None]
            index = mx.broadcast_to(mx.minimum(index, total - 1)[:, None, None], scores.shape)
            scores = mx.where(there, mx.take_along_axis(scores, index, axis=-1), -mx.inf)
        count = -(-total // size)
        scores = mx.pad(scores, [(0, 0)] * 3 + [(0, count * size - total)], constant_values=-mx.inf)
        scores = mx.unflatten(scores, -1, (count, size)).max(axis=-1)
        queries = mx.arange(total - length + start, total - length + stop)
        own = positions(queries, self.left_padding)[:, None, :, None] // size
        block = mx.arange(count)
        local = (block <= own) & (block > own - options.local_blocks)
        return best(mx.where(local, mx.inf, scores), options.top_k)
