"""Tables, means and norms of which each device of a split model has an equal share."""

from __future__ import annotations

from math import gcd

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Shard

__all__ = ["looked_up", "mean", "mean_and_variance", "on_first", "spread_group_norm", "spread_norm"]


def looked_up(table: nn.Embedding, tokens: mx.array, shard: Shard) -> mx.array:
    """Vectors of tokens, out of the table of whichever device has them; the sum has one summand that is not zero.

    Args:
        table: Of a device's share of the tokens, in order.
        tokens: (...).
        shard: Sums over the devices, the width of the table for each token.

    Returns:
        (..., width).
    """
    if shard.size == 1:
        return table(tokens)
    count = table.weight.shape[0]
    row = tokens.astype(mx.int32) - shard.rank * count
    here = (row >= 0) & (row < count)
    vectors = table(mx.where(here, row, 0))
    return shard.sum(mx.where(here[..., None], vectors, mx.zeros_like(vectors)))


def on_first(x: mx.array, shard: Shard) -> mx.array:
    """What every device has, on the first one, and zeros on the others: of all of them the sum is `x`.

    The others compute `x` too. Arrays are lazy: a device that dropped it would not ask for the sums that `x` is made
    of, and the first one would wait for it.

    Args:
        x: Any array, equal on all devices.
        shard: Which device this is, of how many.
    """
    return x if shard.size == 1 else mx.where(mx.array(shard.rank == 0), x, mx.zeros_like(x))


def mean(x: mx.array, shard: Shard) -> mx.array:
    """The mean over the last axis of all devices' arrays, in float32.

    Args:
        x: (..., N), of N numbers on each device.
        shard: Sums over the devices, one number for each row.

    Returns:
        (..., 1).
    """
    return shard.sum(x.astype(mx.float32).mean(axis=-1, keepdims=True)) / shard.size


def mean_and_variance(x: mx.array, shard: Shard) -> tuple[mx.array, mx.array]:
    r"""Mean and variance over the last axis of all devices' arrays, in float32.

    With the means :math:`\mu_i` and variances :math:`v_i` of n devices' equal shares,
    :math:`\mu = \frac{1}{n} \sum_i \mu_i` and :math:`v = \frac{1}{n} \sum_i (v_i + (\mu_i - \mu)^2)`, which loses no
    digits where the mean is large (Chan, Golub and LeVeque 1983).

    Args:
        x: (..., N), of N numbers on each device.
        shard: Sums over the devices, two numbers of each device for each row.

    Returns:
        Each (..., 1).
    """
    wide = x.astype(mx.float32)
    average, variance = wide.mean(axis=-1, keepdims=True), mx.var(wide, axis=-1, keepdims=True)
    if shard.size == 1:
        return average, variance
    both = _of_all(mx.concatenate([average, variance], axis=-1), shard)
    means, variances = both[..., ::2], both[..., 1::2]
    average = means.mean(axis=-1, keepdims=True)
    return average, (variances + mx.square(means - average)).mean(axis=-1, keepdims=True)


def spread_norm(
    x: mx.array, weight: mx.array | None, bias: mx.array | None, eps: float, shard: Shard, *, center: bool
) -> mx.array:
    """The norm over all devices' numbers of those that a device has.

    Numbers that several devices have, such as those of a key/value head that neighbours share, count as often for all
    of them, so means stay what they are.

    Args:
        x: (..., N), of N numbers on each device.
        weight: Scale of each of them, (N,); none by default.
        bias: Shift of each of them, (N,).
        eps: Added to the mean square or the variance.
        shard: Sums over the devices, one number for each row, or to subtract the mean two of each device.
        center: Whether the mean is subtracted first, as a layer norm does.

    Returns:
        The same shape, in float32 or the type of the scale.
    """
    wide = x.astype(mx.float32)
    if center:
        average, square = mean_and_variance(wide, shard)
        wide = wide - average
    else:
        square = mean(mx.square(wide), shard)
    y = wide * mx.rsqrt(square + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def spread_group_norm(x: mx.array, weight: mx.array | None, eps: float, num_groups: int, shard: Shard) -> mx.array:
    """The root-mean-square norm of groups of all devices' numbers of those that a device has.

    A device takes the sums of squares of its own, block by block: a block is as wide as divides both what a device has
    and a group. Out of the sums of all devices each makes the means of its groups.

    Args:
        x: (..., N), of N numbers on each device.
        weight: Scale of each of them, (N,); none by default.
        eps: Added to the mean square.
        num_groups: Equal parts of the numbers of all devices that are normalised each by itself.
        shard: Sums over the devices, one number for each block of all of them.

    Returns:
        The same shape.
    """
    width = x.shape[-1]
    each = width * shard.size // num_groups
    block = gcd(width, each)
    blocks, own = mx.unflatten(x.astype(mx.float32), -1, (-1, block)), width // block
    squares = _of_all(mx.square(blocks).sum(axis=-1), shard)
    means = mx.unflatten(squares, -1, (num_groups, -1)).sum(axis=-1) / each
    means = mx.repeat(means, each // block, axis=-1)[..., shard.rank * own : (shard.rank + 1) * own]
    y = (blocks * mx.rsqrt(means[..., None] + eps)).flatten(-2).astype(x.dtype)
    return y if weight is None else y * weight


def _of_all(own: mx.array, shard: Shard) -> mx.array:
    """All devices' numbers (..., N) beside each other: the sum of arrays that are zero but for those of one device."""
    width = own.shape[-1]
    around = (shard.rank * width, (shard.size - shard.rank - 1) * width)
    return shard.sum(mx.pad(own, [(0, 0)] * (own.ndim - 1) + [around]))
