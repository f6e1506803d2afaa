"""How far one prediction is from another, with a gradient of its own: for large vocabularies, in blocks."""

from __future__ import annotations

from math import factorial
from typing import Any, Final, NamedTuple

import mlx.core as mx

from axon_compose.learn.partition import by_blocks, log_partition, shares

__all__ = ["Compared", "compared", "divergence"]

#: Of (e^d - 1 - d) / d^2, up to what is left out of float32 for |d| <= 1.
_SERIES: Final = tuple(1 / factorial(k) for k in range(2, 13))


class Compared(NamedTuple):
    """Two predictions beside each other; each array is (...), float32.

    Attributes:
        divergence: Of ours from theirs, in nats.
        theirs: The log partition function of their logits.
        ours: That of ours: what a likelihood needs as well.
    """

    divergence: mx.array
    theirs: mx.array
    ours: mx.array


def divergence(theirs: mx.array, ours: mx.array) -> mx.array:
    """The divergence of `compared` alone."""
    return compared(theirs, ours).divergence


def compared(theirs: mx.array, ours: mx.array) -> Compared:
    r"""The Kullback-Leibler divergence of our prediction from theirs, and what was computed on the way.

    With :math:`d = \log q - \log p` it is summed as

    .. math::
        \mathrm{KL}(p \| q) = \sum_v p_v (e^{d_v} - 1 - d_v)

    which is :math:`-\sum p d`, as both sum to one, but has no term below zero: of equal predictions nothing is left,
    and of nearly equal ones no rounding of the size of the entropy.

    Args:
        theirs: (..., V), logits of p.
        ours: (..., V), logits of q.
    """
    found: Any = _compared(theirs.astype(mx.float32), ours.astype(mx.float32))
    return Compared(*found)


@mx.custom_function
def _compared(theirs: mx.array, ours: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    before, now = log_partition(theirs), log_partition(ours)
    return by_blocks(_divergence_of, ours, theirs, before[..., None], now[..., None]), before, now


def _divergence_of(ours: mx.array, theirs: mx.array, before: mx.array, now: mx.array) -> mx.array:
    d = (ours - now) - (theirs - before)
    return _terms(shares(theirs, before), shares(ours, now), d).sum(axis=-1)


@_compared.vjp
def _compared_vjp(
    primals: tuple[mx.array, mx.array], cotangents: tuple[mx.array, ...], found: tuple[mx.array, ...]
) -> tuple[mx.array, mx.array]:
    """Of the divergence, towards our logits q - p and towards theirs p (log p - log q - KL), of partitions the shares.

    Equal predictions have none of the divergence, to the bit.
    """
    theirs, ours = primals
    whole, before, now, *by = (array[..., None] for array in (*found, *cotangents))

    def towards_ours(ours: mx.array, theirs: mx.array, before: mx.array, now: mx.array, *by: mx.array) -> mx.array:
        q = shares(ours, now)
        return (q - shares(theirs, before)) * by[0] + q * by[2]

    def towards_theirs(
        theirs: mx.array, ours: mx.array, whole: mx.array, before: mx.array, now: mx.array, *by: mx.array
    ) -> mx.array:
        return shares(theirs, before) * (((theirs - before) - (ours - now) - whole) * by[0] + by[1])

    return (
        by_blocks(towards_theirs, theirs, ours, whole, before, now, *by),
        by_blocks(towards_ours, ours, theirs, before, now, *by),
    )


@mx.compile
def _terms(p: mx.array, q: mx.array, d: mx.array) -> mx.array:
    """Of the divergence, p (e^d - 1 - d), where q = p e^d."""
    small = mx.clip(d, -1, 1)
    series = mx.full((), _SERIES[-1], d.dtype)
    for factor in reversed(_SERIES[:-1]):
        series = factor + small * series
    near = p * (small * small * series)
    far = q - p * (1 + d)  # without the exponential of a large d
    return mx.where(mx.abs(d) < 1, near, far)
