"""A sequence in pieces, as a cache allows, and how far that is from the whole."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def in_pieces(step, x, sizes):
    """The outputs of `step(piece)` for pieces of `x` (B, L, D) of these sizes, each evaluated before the next."""
    outputs, start = [], 0
    for size in sizes:
        outputs.append(step(x[:, start : start + size]))
        mx.eval(outputs[-1])
        start += size
    assert start == x.shape[1]
    return mx.concatenate(outputs, axis=1)


def off(got, want):
    """The largest difference, in parts of the largest number."""
    got, want = np.array(got), np.array(want)
    assert got.shape == want.shape
    return np.abs(got - want).max() / np.abs(want).max()
