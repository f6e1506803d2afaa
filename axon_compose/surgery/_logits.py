"""Logits of two models, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from axon_compose.model import LanguageModel

__all__ = ["logits_of", "pieces"]

#: Logits that are in memory at once, of each model.
_AT_ONCE = 2**22


def logits_of(model: LanguageModel, h: mx.array) -> mx.array:
    """(N, V) in float32, of rows (N, D) that `model.hidden` gave."""
    logits: mx.array = model.head(h[None], model.embedding)
    return logits[0].astype(mx.float32)


def pieces(rows: int, vocabulary: int) -> Iterator[slice]:
    """Rows whose logits are computed at once."""
    size = max(1, _AT_ONCE // vocabulary)
    return (slice(start, start + size) for start in range(0, rows, size))
