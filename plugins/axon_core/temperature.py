"""Queries that grow with their position, so that attention over a long context stays as sharp as over a short one."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_core.specs._heads import TemperatureOptions

__all__ = ["LogScaling", "query_gain"]


class LogScaling(nn.Module):
    """A learned factor of each head's queries, `scale * log(position + 1) + bias`; it begins as 1.

    (Nakanishi 2025, "Scalable-Softmax Is Superior for Attention", arXiv:2501.19399: the more keys there are, the larger
    scores must be for the softmax to be as sharp. With the shift that Mistral Large 4 learns too.)

    Args:
        num_heads: Number of heads H.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.scale = mx.zeros((num_heads,))
        self.bias = mx.ones((num_heads,))

    def __call__(self, queries: mx.array, offset: int | mx.array) -> mx.array:
        """Multiply `queries` (B, H, L, width), the first of which is at `offset` (int, or (B,) integers)."""
        logs = mx.log1p(_positions(queries.shape[2], offset).astype(mx.float32))
        gain = self.scale[:, None] * logs + self.bias[:, None]
        return queries * gain[..., None].astype(queries.dtype)


def query_gain(length: int, offset: int | mx.array, options: TemperatureOptions) -> mx.array:
    """Factor of the query at each position: `1 + scale * log(1 + floor((position + shift) / length))`.

    (Llama 4 counts positions from one and does without rope there; Ministral 3 from zero, with rope.) Or without steps
    `1 + scale * log(max((position + shift) / length, 1))`, as in Inkling, which counts from one.

    Args:
        length: Number of queries L.
        offset: Position of the first one, an int, or (B,) integers. Positions below zero are padding and count as zero.
        options: `TemperatureOptions`.

    Returns:
        Float32, (L, 1) or (B, 1, L, 1).
    """
    position = _positions(length, offset) + options.shift
    if options.smooth:
        return (1 + options.scale * mx.log(mx.maximum(position.astype(mx.float32) / options.length, 1)))[..., None]
    # In integers, for a quotient in float32 may round up to a step that is not reached.
    steps = position.astype(mx.int32) // options.length
    return (1 + options.scale * mx.log1p(steps.astype(mx.float32)))[..., None]


def _positions(length: int, offset: int | mx.array) -> mx.array:
    """(L,), or (B, 1, L) for (B,) offsets; what is below zero is padding and counts as zero."""
    if isinstance(offset, mx.array) and offset.ndim:
        offset = offset[:, None, None]
    return mx.maximum(mx.arange(length) + offset, 0)
