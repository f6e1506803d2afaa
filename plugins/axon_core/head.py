"""From vectors to scores of the next token."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.elementary import tanh
from axon_core.embedding import TokenEmbedding
from axon_core.linear import Linear

__all__ = ["LMHead"]


class LMHead(nn.Module):
    """Scores of the next token: matrix, bias, factors, cap, in this order.

    A tied head has no matrix: it asks the embedding for its table, so both are one array in training and in files.

    Args:
        hidden_size: Width of the model.
        vocab_size: Number of tokens.
        embedding_size: Width of the embedding's table; the hidden size unless given. A tied head projects to it.
        rows: Rows of the matrix, or of the embedding's table; those after the last token are padding, whose scores are
            left out. As many as tokens unless given.
        tied: Whether the embedding's table is the matrix.
        bias: Whether each token's score has a learned shift.
        scale: Factor of the scores.
        gain: Whether the scores have a learned factor.
        softcap: Bound of the scores, applied in float32 as `softcap * tanh(scores / softcap)`.
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        embedding_size: int | None = None,
        rows: int | None = None,
        *,
        tied: bool = True,
        bias: bool = False,
        scale: float | None = None,
        softcap: float | None = None,
        gain: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.scale = scale
        self.softcap = softcap
        if gain:
            self.gain = mx.ones((1,))
        if not tied:
            self.lm_head = Linear(hidden_size, rows or vocab_size, bias=bias)
            return
        if embedding_size not in (None, hidden_size):
            self.out_proj = Linear(hidden_size, embedding_size, bias=False)
        if bias:
            self.bias = mx.zeros((rows or vocab_size,))

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> LMHead:
        """Build from `LMHeadOptions`.

        Of the embedding's table, `dims.embedding_size` and `dims.embedding_rows`, if there, are the width and the rows.
        """
        given = dict(options)
        own = given.pop("padded_vocab_size")
        rows = dims.get("embedding_rows") if options.tied else own
        return cls(dims.hidden_size, dims.vocab_size, dims.get("embedding_size"), rows, **given)

    def __call__(self, h: mx.array, embedding: TokenEmbedding) -> mx.array:
        """Scores (B, L, V) of `h` (B, L, D), in its dtype."""
        if "lm_head" in self:
            logits = self["lm_head"](h)
        else:
            logits = embedding.as_linear(self["out_proj"](h) if "out_proj" in self else h)
            if "bias" in self:
                logits = logits + self["bias"]
        logits = logits[..., : self.vocab_size]
        if "gain" in self:
            logits = logits * self["gain"].astype(logits.dtype)
        if self.scale is not None:
            logits = logits * self.scale
        if self.softcap is not None:
            capped = tanh(logits.astype(mx.float32) / self.softcap) * self.softcap
            logits = capped.astype(logits.dtype)
        return logits
