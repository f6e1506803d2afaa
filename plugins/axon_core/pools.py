"""Pools of tokens that an indexer chooses together (Z.ai, 2026, GLM-5.3; Qwen, 2026, Qwen4)."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from axon_core.selection import positions

__all__ = ["Pools"]


@dataclass(frozen=True)
class Pools:
    """Pools of the tokens in a cache, counted from the first token of each sequence.

    Attributes:
        size: Tokens of a pool, p.
        length: Queries, the last L tokens.
        total: Tokens and places of padding in the cache, S.
        left_padding: (B,) places before each sequence's first token, None without.
    """

    size: int
    length: int
    total: int
    left_padding: mx.array | None

    def keys(self, keys: mx.array, gates: mx.array, bias: mx.array) -> mx.array:
        r"""One key for each full pool, :math:`\sum_j \mathrm{softmax}_j(g_j + b_j) \odot k_j` over its tokens.

        Args:
            keys: (B, 1, S, width).
            gates: (B, 1, S, width).
            bias: (p, width).

        Returns:
            (B, 1, S // p, width); of a row with padding, the last of them mean nothing and are never seen.
        """
        weights = mx.softmax(self._pooled(gates).astype(mx.float32) + bias.astype(mx.float32), axis=3)
        return (weights.astype(keys.dtype) * self._pooled(keys)).sum(axis=3)

    def means(self, keys: mx.array) -> mx.array:
        """One key for each full pool, the mean of those of its tokens; shapes as of `keys`."""
        return self._pooled(keys).astype(mx.float32).mean(axis=3).astype(keys.dtype)

    def _pooled(self, x: mx.array) -> mx.array:
        """(B, 1, S // p, p, width)."""
        count = self.total // self.size
        if self.left_padding is None:
            return mx.unflatten(x[:, :, : count * self.size], 2, (count, self.size))
        index = mx.minimum(mx.arange(count * self.size) + self.left_padding[:, None], self.total - 1)
        return mx.unflatten(mx.take_along_axis(x, index[:, None, :, None], axis=2), 2, (count, self.size))

    def complete(self, start: int, stop: int) -> mx.array:
        """Which pools are full with each query from `start` to `stop`, (B or 1, 1, stop - start, S // p)."""
        return mx.arange(self.total // self.size) < self._full(start, stop)[:, None, :, None]

    def tokens(self, chosen: mx.array, seen: mx.array | None, start: int = 0) -> mx.array:
        """The tokens of chosen pools, and those after the last full one, for N queries: (B, 1, N, S).

        Args:
            chosen: Pools, (B, 1, N, S // p).
            seen: What may be seen, None for all.
            start: The first of the queries.
        """
        stop = start + chosen.shape[2]
        place = positions(mx.arange(self.total), self.left_padding)[:, None, None]
        pool = place // self.size
        index = mx.broadcast_to(mx.clip(pool, 0, chosen.shape[-1] - 1), (*chosen.shape[:3], self.total))
        full = self._full(start, stop)[:, None, :, None]
        found = (mx.take_along_axis(chosen, index, axis=-1) & (pool < full)) | (pool >= full)
        own = self._positions(start, stop)[:, None, :, None]
        found = found & (place >= 0) & (place <= own)
        return found if seen is None else found & seen

    def _full(self, start: int, stop: int) -> mx.array:
        """Full pools when each query's token is there, (B or 1, stop - start)."""
        return (self._positions(start, stop) + 1) // self.size

    def _positions(self, start: int, stop: int) -> mx.array:
        """Of queries in their sequences, (B or 1, stop - start)."""
        before = self.total - self.length
        return positions(mx.arange(before + start, before + stop), self.left_padding)
