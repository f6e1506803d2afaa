"""A root-mean-square norm of groups of channels that lie on several devices.

A device takes the sums of squares of its own channels, block by block: a block is as wide as divides both what a device
has and a group. The devices add a vector that is zero but for the blocks of one of them, so that each has all sums and
makes of them the means of its groups. That is a few numbers for each token.
"""

from __future__ import annotations

from math import gcd

import mlx.core as mx

from axon_compose.registry import Shard

__all__ = ["spread_rms_norm"]


def spread_rms_norm(x: mx.array, weight: mx.array | None, eps: float, num_groups: int, shard: Shard) -> mx.array:
    """Normalise the channels that a device has.

    Args:
        x: (..., E / n) of E channels on n devices.
        weight: Scale of each of them, (E / n,); none by default.
        eps: Added to the mean square.
        num_groups: Equal parts of all E channels that are normalised each by itself.
        shard: Which device this is, of how many.

    Returns:
        The same shape.
    """
    width = x.shape[-1]
    channels = width * shard.size
    each = channels // num_groups
    block = gcd(width, each)
    blocks, first = mx.unflatten(x.astype(mx.float32), -1, (-1, block)), shard.rank * width // block
    own = width // block
    squares = mx.square(blocks).sum(axis=-1)
    around = [(0, 0)] * (squares.ndim - 1) + [(first, channels // block - first - own)]
    squares = shard.sum(mx.pad(squares, around))
    means = mx.unflatten(squares, -1, (num_groups, -1)).sum(axis=-1) / each
    means = mx.repeat(means, each // block, axis=-1)[..., first : first + own]
    y = (blocks * mx.rsqrt(means[..., None] + eps)).flatten(-2).astype(x.dtype)
    return y if weight is None else y * weight
