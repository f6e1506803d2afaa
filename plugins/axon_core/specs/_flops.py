"""What the built-in components count as floating-point operations: products, convolutions, attention and scans."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

__all__ = ["attention_flops", "chunk_pairs", "convolution_flops", "pairs", "product_flops"]


def product_flops(shapes: Mapping[str, tuple[int, ...]], tokens: int) -> int:
    """Products of every token with each matrix, the parameters named `weight` with two axes; norms are none."""
    matrices = (
        shape
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(".weight") and not name.endswith("norm.weight")
    )
    return 2 * tokens * sum(map(prod, matrices))


def convolution_flops(channels: int, taps: int, tokens: int) -> int:
    """A convolution of every channel by itself."""
    return 2 * tokens * channels * taps


def pairs(tokens: int, context: int, window: int | None = None) -> int:
    """Pairs of a query and a key that it sees: the sum of `min(t, window)` over the last `tokens` of `context`."""
    first = context - tokens
    return _seen(context, window) - _seen(first, window)


def attention_flops(heads: int, key_dim: int, value_dim: int, seen: int) -> int:
    """Scores and sums of values for this number of pairs in each head; pairs that a mask hides are not counted."""
    return 2 * heads * seen * (key_dim + value_dim)


def _seen(tokens: int, window: int | None) -> int:
    """Pairs of a sequence from its start."""
    inside = tokens if window is None else min(tokens, window)
    return inside * (inside + 1) // 2 + (tokens - inside) * inside


def chunk_pairs(tokens: int, context: int, chunk: int) -> int:
    """The same where a query sees the tokens of its own chunk."""

    def until(position: int) -> int:
        whole, rest = divmod(position, chunk)
        return whole * chunk * (chunk + 1) // 2 + rest * (rest + 1) // 2

    return until(context) - until(context - tokens)
