"""Attention within a window and to compressed tokens before it (DeepSeek-AI, 2026, "DeepSeek-V4", section 2.3)."""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.mla import MultiLinear

from axon_compose.registry import Dims
from axon_core.compressor import Compressor, Progress, Trailing
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.scores import attend
from axon_core.selection import choose, places, store
from axon_core.specs.compressed_attention import CompressedAttentionOptions, CompressionOptions, EntryIndexerOptions
from axon_core.states import write_states
from axon_core.window import Mask, band, by_block, reached

__all__ = ["CompressedAttention"]


class CompressedAttention(nn.Module):
    """Causal attention of all heads to one key per token, which is its value too.

        q      = rope(norm(q_b_proj(q_a_norm(q_a_proj(x)))))      per head
        k = v  = rope(kv_norm(kv_proj(x)))                        of the last `window_size` tokens,
                 and the entries of `axon_core.compressor`        that are complete
        y      = o_b_proj(o_a_proj of each group of heads (unrope(softmax(q · k) v)))

    Values are rotated as keys are, so the output is rotated back by its query's position: what a key contributes
    depends on the distance alone. Each head has a sink. With an indexer, a query attends to a part of the entries.

    Args:
        hidden_size: Width D of the model.
        options: `CompressedAttentionOptions`.
    """

    def __init__(self, hidden_size: int, options: CompressedAttentionOptions) -> None:
        super().__init__()
        heads, width, eps = options.num_heads, options.head_dim, options.norm_eps
        self.num_heads, self.groups, self.window_size = heads, options.o_groups, options.window_size
        self.scale, self.eps = width**-0.5, eps
        self.q_a_proj = Linear(hidden_size, options.q_lora_rank, bias=False)
        self.q_a_norm = RMSNorm(options.q_lora_rank, eps)
        self.q_b_proj = Linear(options.q_lora_rank, heads * width, bias=False)
        self.kv_proj = Linear(hidden_size, width, bias=False)
        self.kv_norm = RMSNorm(width, eps)
        self.sinks = mx.zeros((heads,))
        self.o_a_proj = MultiLinear(heads * width // self.groups, options.o_lora_rank, self.groups)
        self.o_b_proj = Linear(self.groups * options.o_lora_rank, hidden_size, bias=False)
        rotation = options.rotation
        self.rope = Trailing(options.rope_dim, rotation)
        self.unrope = Trailing(options.rope_dim, rotation.model_copy(update={"reverse": not rotation.reverse}))
        self.compression = options.compression
        if options.compression is not None:
            shared = (options.compression, options)
            self.compressor = _compressor(hidden_size, width, *shared)
            if options.compression.indexer is not None:
                self.indexer = EntryIndexer(hidden_size, options.compression.indexer, *shared)

    @classmethod
    def from_options(cls, options: CompressedAttentionOptions, dims: Dims) -> CompressedAttention:
        """Build from `CompressedAttentionOptions`."""
        return cls(dims.hidden_size, options)

    def __call__(
        self,
        x: mx.array,
        mask: Mask | tuple[Mask, ...] = None,
        cache: Any = None,
        offset: int | mx.array | None = None,
    ) -> tuple[mx.array, Any]:
        """Attend.

        Args:
            x: (B, L, D).
            mask: Which keys of the window a single query sees, or a tuple that begins with it; only read where L is 1.
            cache: mlx-lm's cache of the window's keys, with values of no width. With compression a `CacheList` of that,
                of a cache of pieces (see `axon_core.compressor`), and of states. None without.
            offset: Position of the first token, int or (B,); the cache's own, or 0, unless given.

        Returns:
            The output (B, L, D), and `cache`.
        """
        whole = self.compression is None
        kept = cache if whole or cache is None else cache[0]
        if offset is None:
            offset = 0 if kept is None else kept.offset
            if isinstance(offset, mx.array):
                offset = mx.array(offset)  # a copy, for the cache adds to its own in place
        seen: Mask = mask[0] if isinstance(mask, tuple) else mask
        if x.shape[1] == 1 and seen is None and hasattr(kept, "make_mask"):
            seen = kept.make_mask(1, return_array=False, window_size=self.window_size)
        latent = self.q_a_norm(self.q_a_proj(x))
        queries = self.q_b_proj(latent).reshape(*x.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3)
        queries = self.rope(mx.fast.rms_norm(queries, None, self.eps), offset)
        entries = None if whole else self._entries(x, latent, cache, offset)
        keys, _ = store(kept, self.rope(self.kv_norm(self.kv_proj(x))[:, None], offset))
        y = self._attend(queries, keys, seen, getattr(kept, "left_padding", None), entries)
        y = self.unrope(y, offset).transpose(0, 2, 1, 3)
        y = self.o_a_proj(y.reshape(*y.shape[:2], self.groups, -1).transpose(0, 2, 1, 3))
        return self.o_b_proj(y.transpose(0, 2, 1, 3).flatten(2)), cache

    def _entries(self, x: mx.array, latent: mx.array, cache: Any, offset: int | mx.array) -> Entries:
        """Compress, store, and choose."""
        assert self.compression is not None
        length = x.shape[1]
        lengths = getattr(cache[2], "lengths", None) if cache is not None else None
        valid = length if lengths is None else mx.clip(lengths, 0, length)
        at = Progress(self.compression.ratio, length, offset, valid)
        parts = [(self.compressor, x)]
        if "indexer" in self:
            parts.append((self.indexer.compressor, mx.stop_gradient(x)))
        old = [None] * (3 * len(parts)) if cache is None else [cache[2][i] for i in range(3 * len(parts))]
        found = [part(inputs, old[3 * i : 3 * i + 3], at) for i, (part, inputs) in enumerate(parts)]
        stored, held = _stored(cache, [pieces for _, pieces, _ in found])
        if cache is not None:
            states = [state for _, _, new in found for state in new]
            write_states(cache[2], states, length)
            held += states
        padding = None if cache is None else getattr(cache[1], "left_padding", None)
        keys, *index_keys = (
            part.history(entries, pieces, new[2], at, padding)
            for (part, _), (entries, _, new), pieces in zip(parts, found, stored, strict=True)
        )
        keys = mx.depends(keys, held) if held else keys
        if not index_keys:
            return Entries(keys, at, None, 0)
        return Entries(keys, at, self.indexer(x, latent, index_keys[0], at, offset), self.indexer.top_k)

    def _attend(
        self, queries: mx.array, keys: mx.array, mask: Mask, padding: mx.array | None, entries: Entries | None
    ) -> mx.array:
        """(B, H, L, head_dim)."""
        scores = partial(attend, scale=self.scale, sinks=self.sinks)
        length, total = queries.shape[2], keys.shape[2]
        if length == 1:
            window = mask if isinstance(mask, mx.array) else None
            return scores(queries, *_joined(keys, window, entries.of_step() if entries is not None else None))

        def attend_block(block: mx.array, start: int, stop: int) -> mx.array:
            first, last = reached(start, stop, length, total, self.window_size)
            before = None if padding is None else padding - first
            seen = band(stop - start, last - first, self.window_size, before)
            part = None if entries is None else entries.of_block(start, stop)
            return scores(block, *_joined(keys[:, :, first:last], seen, part))

        return by_block(queries, attend_block)


class EntryIndexer(nn.Module):
    """Scores every entry for every query, as `axon_core.indexer.Indexer` does tokens; its parameters are frozen too.

    Args:
        hidden_size: Width D of the model.
        options: `EntryIndexerOptions`.
        compression: Of the attention.
        attention: Options of the attention.
    """

    def __init__(
        self,
        hidden_size: int,
        options: EntryIndexerOptions,
        compression: CompressionOptions,
        attention: CompressedAttentionOptions,
    ) -> None:
        super().__init__()
        self.num_heads, self.top_k = options.num_heads, options.top_k
        self.compressor = _compressor(hidden_size, options.head_dim, compression, attention)
        self.q_b_proj = Linear(attention.q_lora_rank, options.num_heads * options.head_dim, bias=False)
        self.weights_proj = Linear(hidden_size, options.num_heads, bias=False)
        self.rope = Trailing(attention.rope_dim, attention.rotation)
        self.scale = (options.num_heads * options.head_dim) ** -0.5
        self.freeze()

    def __call__(
        self, x: mx.array, latent: mx.array, entries: mx.array, at: Progress, offset: int | mx.array
    ) -> mx.array | None:
        """Which entries (B, N, width) each query attends to, (B, 1, L, N); None for all that are complete."""
        if entries.shape[1] <= self.top_k:
            return None
        x, latent = mx.stop_gradient(x), mx.stop_gradient(latent)
        queries = self.q_b_proj(latent).reshape(*x.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3)
        weights = self.weights_proj(x).astype(mx.float32) * self.scale

        def complete(start: int, stop: int) -> mx.array:
            return mx.arange(entries.shape[1]) < at.seen[:, None, start:stop, None]

        return choose(self.rope(queries, offset), entries[:, None], weights, complete, self.top_k)


class Entries:
    """Compressed entries that queries may attend to.

    Args:
        keys: (B, N, head_dim).
        at: How far each row is.
        chosen: Which of them each query attends to, (B, 1, L, N); None for all that are complete.
        most: How many those are at most.
    """

    def __init__(self, keys: mx.array, at: Progress, chosen: mx.array | None, most: int) -> None:
        self.keys, self.at, self.chosen, self.most = keys[:, None], at, chosen, most

    def of_block(self, start: int, stop: int) -> tuple[mx.array, mx.array | None]:
        """Keys, and which of them the queries from `start` to `stop` see, (B or 1, 1, stop - start, N)."""
        if self.chosen is not None:
            return self.keys, self.chosen[:, :, start:stop]
        return self.keys, mx.arange(self.keys.shape[2]) < self.at.seen[:, None, start:stop, None]

    def of_step(self) -> tuple[mx.array, mx.array | None]:
        """The same for a single query, which reads the chosen ones alone."""
        if self.chosen is not None:
            where = places(self.chosen[:, 0], self.most)
            keys = mx.take_along_axis(self.keys, where.swapaxes(-1, -2)[:, None], axis=2)
            return keys, mx.take_along_axis(self.chosen, where[:, None], axis=-1)
        return (self.keys, None) if self.at.alike else self.of_block(0, 1)


def _compressor(
    hidden_size: int, width: int, compression: CompressionOptions, options: CompressedAttentionOptions
) -> Compressor:
    shape = (compression.ratio, compression.overlap)
    return Compressor(hidden_size, width, *shape, options.rotation, options.rope_dim, options.norm_eps)


def _stored(cache: Any, pieces: list[mx.array]) -> tuple[list[mx.array | None], list[mx.array]]:
    """Put the pieces (B, L, ·) of one compressor or two into the cache.

    Returns:
        The pieces of all tokens, None without a cache, and what has to be computed with the output (see `store`).
    """
    if cache is None:
        return [None] * len(pieces), []
    new = [array[:, None] for array in pieces]
    every = store(cache[1], new[0])[1] if len(new) == 1 else list(cache[1].update_and_fetch(*new))
    return [array[:, 0] for array in every[: len(new)]], every


def _joined(
    keys: mx.array, mask: mx.array | None, more: tuple[mx.array, mx.array | None] | None
) -> tuple[mx.array, mx.array, mx.array | None]:
    """Keys of the window and entries side by side, the same as values, and what is seen of both."""
    if more is None:
        return keys, keys, mask
    entries, seen = more
    if mask is None and seen is None:
        both = mx.concatenate([keys, entries], axis=2)
        return both, both, None
    mask = mx.ones((1, 1, 1, keys.shape[2]), dtype=mx.bool_) if mask is None else mask
    mask = mask[None, None] if mask.ndim == 2 else mask
    seen = mx.ones((1, 1, 1, entries.shape[2]), dtype=mx.bool_) if seen is None else seen
    rows = mx.broadcast_shapes(mask.shape[:3], seen.shape[:3])
    parts = [mx.broadcast_to(part, (*rows, part.shape[-1])) for part in (mask, seen)]
    both = mx.concatenate([keys, entries], axis=2)
    return both, both, mx.concatenate(parts, axis=-1)
