"""Engram: a memory that is looked up by the last few tokens (Cheng et al. 2026, arXiv:2601.07372)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from axon_compose.registry import Dims, Shard
from axon_core.conv import causal_conv, draw_taps, last_inputs
from axon_core.elementary import sigmoid, silu
from axon_core.linear import Embedding, Linear
from axon_core.ngrams import last_tokens
from axon_core.norms import RMSNorm
from axon_core.specs.engram import EngramOptions
from axon_core.states import read_states, write_states

__all__ = ["Engram"]


class Engram(nn.Module):
    r"""What hash tables hold of the last few tokens, let in by a gate that compares it with the stream.

    An n-gram that ends with token t falls on a row of each of its tables,

    .. math::
        h = (m_0 t_0) \oplus (m_1 t_{-1}) \oplus \dots \oplus (m_{n-1} t_{-n+1}) \bmod \mathrm{rows}

    with odd multipliers m and tables of unlike prime sizes. The rows of all tables side by side are e, and

        g = key_norm(key_proj(e)) · query_norm(x) / sqrt(D)
        v = sigmoid(sign(g) sqrt(max(|g|, 1e-6))) * value_proj(e)
        y = v + silu(conv1d(conv_norm(v)))                              taps `dilation` tokens apart

    Of several streams side by side, each has a gate, norms and taps of its own. (Hugging Face's
    `Qwen4ExpTextPLELayer`.)

    Args:
        hidden_size: Width of x, of all streams together.
        vocab_size: Tokens.
        options: `EngramOptions`.
        streams: Streams side by side.
        shard: For rows of tables that are split over devices, which sum what is made of them.
    """

    def __init__(
        self, hidden_size: int, vocab_size: int, options: EngramOptions, streams: int = 1, shard: Shard = Shard()
    ) -> None:
        super().__init__()
        self.options, self.streams, self.hidden_size, self._shard = options, streams, hidden_size, shard
        width, rows = options.row(hidden_size // streams), sum(options.sizes)
        self.embedder = Embedding(rows + -rows % options.multiple, width)
        self.key_proj = Linear(options.count * width, hidden_size, bias=False)
        self.value_proj = Linear(options.count * width, hidden_size // streams, bias=False)
        for name in ("key_norm", "query_norm", "conv_norm"):
            self[name] = RMSNorm(hidden_size, options.norm_eps, num_groups=streams, offset=options.norm_offset)
        self.conv1d = nn.Conv1d(hidden_size, hidden_size, options.d_conv, groups=hidden_size, bias=False)
        draw_taps(self.conv1d)
        self._sizes, self._starts, factors = (
            mx.array(np.array(numbers, dtype=np.int64))
            for numbers in (options.sizes, options.starts, options.multipliers(vocab_size))
        )
        self._factors = list(factors)

    @classmethod
    def from_options(cls, options: EngramOptions, dims: Dims) -> Engram:
        """Build from `EngramOptions`."""
        return cls(dims.hidden_size, dims.vocab_size, options, dims.streams, dims.shard)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, cache: Any = None, *, tokens: mx.array
    ) -> tuple[mx.array, Any]:
        """Look up.

        Args:
            x: (B, L, hidden_size).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, or mlx-lm's `ArraysCache(2)`, which is updated: entry 0 holds the last tokens, as numbers less
                that of `eos`, entry 1 the last inputs of the convolution.
            tokens: (B, L) integers.

        Returns:
            (B, L, hidden_size), and the cache.
        """
        (before, seen), mask = read_states(cache, mask, tokens.shape[1], count=2)
        rows, before = self._rows(tokens, mask, before)
        keys, values = self._read(self.embedder(rows).flatten(-2))
        gates = self._gates(self.key_norm(keys), self.query_norm(x)).astype(x.dtype)
        v = (gates * values[..., None, :]).flatten(-2)
        y, seen = causal_conv(self.conv1d, self.conv_norm(v), mask, seen, self.options.stride)
        return v + silu(y).astype(x.dtype), write_states(cache, [before, seen], tokens.shape[1])

    def _rows(self, tokens: mx.array, mask: mx.array | None, before: mx.array | None) -> tuple[mx.array, mx.array]:
        """The row of each table, (B, L, tables), and what the next call needs of the tokens."""
        options, (batch, length) = self.options, tokens.shape
        end, kept = options.eos or 0, options.longest - 1
        new = (tokens - end).astype(mx.float32)[..., None]  # so that a state of zeros is one of ends
        if mask is not None:
            new = mx.where(mask[..., None], new, 0.0)
        old = mx.zeros((batch, kept, 1), mx.float32) if before is None else before
        window = mx.concatenate([old, new], axis=1)
        ids = window[..., 0].astype(mx.int64) + end
        last = last_tokens(ids, length, options.longest, options.eos, end)
        mixed, found = last[0] * self._factors[0], []
        for back in range(1, options.longest):
            mixed = mixed ^ (last[back] * self._factors[back])
            own = slice((back - 1) * options.tables, back * options.tables)
            found.append(mixed[..., None] % self._sizes[own] + self._starts[own])
        return mx.concatenate(found, axis=-1), last_inputs(window, mask, kept)

    def _read(self, e: mx.array) -> tuple[mx.array, mx.array]:
        """Keys for all streams and the values, of what this device has looked up."""
        keys, values = self.key_proj(e), self.value_proj(e)
        if self._shard.size == 1:
            return keys, values
        keys, values = mx.split(self._shard.sum(mx.concatenate([keys, values], axis=-1)), [keys.shape[-1]], axis=-1)
        return keys, values

    def _gates(self, keys: mx.array, queries: mx.array) -> mx.array:
        """(B, L, streams, 1) in float32."""
        width = self.hidden_size // self.streams
        product = (keys.astype(mx.float32) * queries.astype(mx.float32)).reshape(*keys.shape[:2], self.streams, width)
        g = product.sum(axis=-1, keepdims=True) * width**-0.5
        return sigmoid(mx.sign(g) * mx.sqrt(mx.maximum(mx.abs(g), 1e-6)))
