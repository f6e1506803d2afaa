"""Queries that grow with their position, so that attention over a long context stays as sharp as over a short one."""

from __future__ import annotations

import mlx.core as mx

from axon_core.specs._heads import TemperatureOptions

__all__ = ["query_gain"]


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
    if isinstance(offset, mx.array) and offset.ndim:
        offset = offset[:, None, None]
    position = mx.maximum(mx.arange(length) + offset, 0) + options.shift
    if options.smooth:
        return (1 + options.scale * mx.log(mx.maximum(position.astype(mx.float32) / options.length, 1)))[..., None]
    # In integers, for a quotient in float32 may round up to a step that is not reached.
    steps = position.astype(mx.int32) // options.length
    return (1 + options.scale * mx.log1p(steps.astype(mx.float32)))[..., None]
