"""The norm of a gradient against float64, also of many numbers, and what clipping makes of it."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from axon_compose.learn.holding import Copied, sum_of_squares
from axon_compose.learn.ranks import Ranks


@pytest.mark.parametrize("shape", [(), (3,), (1024,), (1025,), (3, 5, 700), (3001, 1000), (3_000_001,)])
def test_squares_are_added_as_in_float64(shape: tuple[int, ...]) -> None:
    x = mx.random.normal(shape, loc=1.0, key=mx.random.key(0))
    exact = np.square(np.array(x, dtype=np.float64)).sum()
    assert sum_of_squares([x, x]).item() == pytest.approx(2 * exact, rel=2e-6)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_gradients_get_the_norm(dtype: mx.Dtype) -> None:
    gradients = {"a": mx.full((4, 25), 300.0, dtype=dtype), "b": [mx.full((300,), 300.0, dtype=dtype)]}
    clipped, norm = Copied(nn.Module(), cast(Any, Ranks)).clip(gradients, 20.0)
    assert norm.item() == pytest.approx(6000, rel=1e-6)
    assert [each.dtype for each in (clipped["a"], clipped["b"][0])] == [dtype] * 2
    np.testing.assert_allclose(np.array(clipped["b"][0].astype(mx.float32)), 1.0, rtol=4e-3)


def test_smaller_gradients_stay() -> None:
    gradients = {"a": mx.array([3.0, 4.0])}
    clipped, norm = Copied(nn.Module(), cast(Any, Ranks)).clip(gradients, 5.1)
    assert norm.item() == 5
    assert clipped["a"].tolist() == [3, 4]
