"""Means, variances and norms of numbers that lie on several devices, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose.registry import Shard
from axon_core.norms import RMSNorm
from axon_core.sharded import mean, mean_and_variance, spread_norm

SIZE = 4


def on_devices(work: Callable[[mx.array, Shard], Any], x: np.ndarray, sums: int = 1) -> list[Any]:
    """What each device gives for its share of the last axis, with one sum between them, or none."""
    shares = [mx.array(share, mx.float32) for share in np.split(x, SIZE, axis=-1)]
    given: list[mx.array] = []

    def give(array: mx.array) -> mx.array:
        given.append(array)
        return array

    for rank, share in enumerate(shares):
        work(share, Shard(rank, SIZE, give))
    assert len(given) == SIZE * sums
    total = sum(given[1:], given[0]) if given else None
    return [work(share, Shard(rank, SIZE, lambda _: total)) for rank, share in enumerate(shares)]


@pytest.mark.parametrize("shift", [0.0, 3.0, 1000.0])
def test_mean_and_variance_keep_their_digits(shift: float) -> None:
    """A mean of a thousand deviations: the mean of squares less the square of the mean would have no digit left."""
    x = (np.random.default_rng(0).standard_normal((3, 2, 32)) + shift).astype(np.float32)
    exact = x.astype(np.float64)
    for average, variance in on_devices(mean_and_variance, x):
        assert np.allclose(average, exact.mean(-1, keepdims=True), rtol=1e-6, atol=1e-6)
        assert np.allclose(variance, exact.var(-1, keepdims=True), rtol=3e-4 if shift > 100 else 2e-6)
    for average in on_devices(mean, x):
        assert np.allclose(average, exact.mean(-1, keepdims=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("center", [False, True])
def test_norms_are_those_of_the_whole(center: bool) -> None:
    rng = np.random.default_rng(1)
    x, weight, bias = 2 + rng.standard_normal((3, 32)), rng.standard_normal(32), rng.standard_normal(32)
    wide = x - x.mean(-1, keepdims=True) if center else x
    exact = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def work(share: mx.array, shard: Shard) -> mx.array:
        own = slice(8 * shard.rank, 8 * shard.rank + 8)
        learned = mx.array(weight[own], mx.float32), mx.array(bias[own], mx.float32)
        return spread_norm(share, *learned, 1e-5, shard, center=center)

    assert np.allclose(np.concatenate(on_devices(work, x), axis=-1), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3, 6, 12])
def test_norms_of_groups_are_those_of_all_channels(groups: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 24)).astype(np.float32)
    whole = RMSNorm(24, 1e-3, num_groups=groups)(mx.array(x))
    grouped = x.reshape(2, 3, groups, -1).astype(np.float64)
    truth = grouped / np.sqrt((grouped**2).mean(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(np.array(whole), truth.reshape(x.shape), rtol=1e-5, atol=1e-6)

    def work(share: mx.array, shard: Shard) -> mx.array:
        return RMSNorm(6, 1e-3, num_groups=groups, shard=shard)(share)

    found = on_devices(work, x, sums=int(bool(groups % SIZE)))
    np.testing.assert_allclose(np.concatenate(found, axis=-1), np.array(whole), rtol=2e-6, atol=1e-6)
