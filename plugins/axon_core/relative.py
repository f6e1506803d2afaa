"""Scores by how far back a key is, in a way that each query chooses: learned profiles of the distance, mixed by it."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

__all__ = ["Relative", "relative_scores"]


class Relative(NamedTuple):
    """What attention adds to its scores, for queries that carry their mixtures as further numbers.

    Attributes:
        profiles: (R, E), the score of each distance in each profile, that of the query's own key first.
        newest: Where the key of a single query is, if keys are in the order of a ring; None where it is the last one.
    """

    profiles: mx.array
    newest: int | None = None


def relative_scores(mixtures: mx.array, relative: Relative, total: int, ahead: int = 0) -> mx.array:
    r"""The scores of keys by their distance.

    .. math::
        b_{ij} = \sum_r m_{ir} P_{r,\, i-j} \quad \text{for} \quad 0 \le i - j < E, \qquad 0 \text{ else}

    A row of distances becomes a row of keys by one step to the right for each query: rows are made longer by as many
    zeros as there are queries, and read in rows that are shorter by one.

    Args:
        mixtures: m, (B, H, L, R).
        relative: The profiles P, and where keys are.
        total: Number of keys S.
        ahead: Keys after that of the last query; they get 0.

    Returns:
        (B, H, L, S) in float32.
    """
    *heads, length, _ = mixtures.shape
    first = total - ahead - length  # the key of the first query
    far = min(relative.profiles.shape[1], total - ahead)
    rising = relative.profiles[:, :far][:, ::-1].astype(mx.float32)
    rows = mixtures.astype(mx.float32) @ rising
    width = far + length - 1
    rows = mx.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, length)]).reshape(*heads, -1)
    skewed = rows[..., : length * width].reshape(*heads, length, width)
    before = first - far + 1  # keys that no query reaches; less than none where the first ones reach beyond the start
    skewed = skewed[..., max(0, -before) :]
    if before > 0 or ahead:
        skewed = mx.pad(skewed, [(0, 0)] * (skewed.ndim - 1) + [(max(0, before), ahead)])
    return skewed if relative.newest is None else mx.roll(skewed, relative.newest + 1, -1)
