"""From tokens to vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.linear import Embedding, Linear
from axon_core.norms import LayerNorm, RMSNorm
from axon_core.per_layer import PerLayerInputs
from axon_core.sharded import looked_up
from axon_core.specs._per_layer_options import PerLayerOptions
from axon_core.specs.embedding import EmbeddingNormOptions
from axon_core.specs.splits.vocabulary import BY_WIDTH, ROWS

__all__ = ["TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """A table of vectors; if its width is not the hidden size, a projection follows (factored embedding).

    Args:
        vocab_size: Number of tokens.
        hidden_size: Width of the model.
        size: Width of the table; the hidden size unless given.
        scale: Factor of the vectors.
        scale_dtype: Type that the factor is rounded to, e.g. "bfloat16"; not rounded unless given.
        norm: Norm after the factor and the positions, none unless given.
        positions: Number of positions that have a learned vector, which is added (as in GPT), or "sinusoidal" for
            vectors that are computed; none unless given.
        first_position: Position of the first token.
        per_layer: A second embedding that is published as `per_layer_inputs` (see `axon_core.per_layer`).
        padded_vocab_size: Rows of the table, of which those after the last token are padding; as many as tokens unless
            given.
        shard: For a table of which each device has the vectors of some tokens: which ones these are.
        inputs: Which part of per-layer inputs a device has, as arguments of `PerLayerInputs`; all unless given.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        size: int | None = None,
        scale: float | None = None,
        scale_dtype: str | None = None,
        norm: EmbeddingNormOptions | None = None,
        positions: int | Literal["sinusoidal"] | None = None,
        first_position: int = 0,
        per_layer: PerLayerOptions | None = None,
        padded_vocab_size: int | None = None,
        shard: Shard = Shard(),
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._shard = shard
        self.width, self.first_position = size or hidden_size, first_position
        self.scale = scale
        if scale is not None and scale_dtype is not None:
            rounded: Any = mx.array(scale, getattr(mx, scale_dtype)).item()
            self.scale = rounded
        self.embed_tokens = Embedding(padded_vocab_size or vocab_size, self.width)
        if self.width != hidden_size:
            self.in_proj = Linear(self.width, hidden_size, bias=False)
        self.sinusoidal = positions == "sinusoidal"
        if isinstance(positions, int):
            self.embed_positions = nn.Embedding(positions, hidden_size)
        if norm is not None and norm.type == "layer_norm":
            self.norm = LayerNorm(hidden_size, norm.eps, norm.weight, norm.bias)
        elif norm is not None:
            self.norm = RMSNorm(hidden_size, norm.eps, norm.weight)
        if per_layer is not None:
            self.per_layer = PerLayerInputs(vocab_size, hidden_size, per_layer, **(inputs or {}))

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> TokenEmbedding:
        """Build from `TokenEmbeddingOptions`."""
        inputs: dict[str, Any] = {}
        if dims.get(BY_WIDTH) or dims.get(ROWS):
            inputs = {"shard": dims.shard, "held": dims.get(ROWS)}
        return cls(dims.vocab_size, dims.hidden_size, **dict(options), shard=dims.shard, inputs=inputs)

    def __call__(
        self,
        tokens: mx.array,
        offset: int | mx.array = 0,
        publish: Callable[[str, Any], None] | None = None,
    ) -> mx.array:
        """Look up.

        Args:
            tokens: (B, L).
            offset: Position of the first token, int or (B,); below 0 on padding.
            publish: Called with `("per_layer_inputs", inputs)`, (B, L, layers, size), and `("vectors", h)`, (B, L, D),
                if some layer reads one of them.

        Returns:
            Vectors (B, L, D).
        """
        h = looked_up(self["embed_tokens"], tokens, self._shard)
        if "in_proj" in self:
            h = self["in_proj"](h)
        if self.scale is not None:
            h = h * self.scale
        if "embed_positions" in self:
            last = self["embed_positions"].weight.shape[0] - 1
            h = h + self["embed_positions"](mx.clip(self._positions(tokens.shape[1], offset), 0, last))
        if self.sinusoidal:
            h = h + sinusoids(self._positions(tokens.shape[1], offset), h.shape[-1]).astype(h.dtype)
        if "norm" in self:
            h = self["norm"](h)
        if publish is not None:
            publish("vectors", h)
            if "per_layer" in self:
                publish("per_layer_inputs", self["per_layer"](tokens, h))
        return h

    def _positions(self, length: int, offset: int | mx.array) -> mx.array:
        """(L,) or (B, L)."""
        start = offset[:, None] if isinstance(offset, mx.array) and offset.ndim else offset
        return mx.arange(length) + start + self.first_position

    def as_linear(self, h: mx.array) -> mx.array:
        """Scores (..., rows) of `h` (..., width) against every vector of the table."""
        return self["embed_tokens"].as_linear(h)


def sinusoids(positions: mx.array, width: int) -> mx.array:
    """Sines and then cosines (…, width) of positions (…), from one turn in 2 pi tokens to one in 20,000 pi."""
    half = width // 2
    rates = mx.exp(mx.arange(half) * (-log(10000) / max(half - 1, 1)))
    angles = positions[..., None].astype(mx.float32) * rates
    waves = mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)
    return mx.pad(waves, [(0, 0)] * (waves.ndim - 1) + [(0, width % 2)]) if width % 2 else waves
