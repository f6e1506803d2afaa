"""Logits of two models, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from axon_compose.model import LanguageModel

__all__ = ["logits_of", "pieces"]

#: Logits that are in memory at once, of each model; for large vocabularies more, as a product of few rows with a large
#: table is slow: with 262,144 x 640 numbers 16 rows take 11 ms each, 64 rows 5.7 (one x86-64 core, OpenBLAS).
_AT_ONCE = 2**22
_FEWEST = 64


def logits_of(model: LanguageModel, h: mx.array) -> mx.array:
    """(N, V) in float32, of rows (N, D) that `model.hidden` gave."""
    logits: mx.array = model.head(h[None], model.embedding)
    return logits[0].astype(mx.float32)


def pieces(rows: int, vocabulary: int) -> Iterator[slice]:
    """Rows whose logits are computed at once."""
    size = max(_FEWEST, _AT_ONCE // vocabulary)
    return (slice(start, start + size) for start in range(0, rows, size))
