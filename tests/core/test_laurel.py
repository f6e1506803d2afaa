"""Learned augmented residual layers, against float64 NumPy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from axon_compose.registry import Dims
from axon_core.laurel import Laurel
from axon_core.specs.laurel import SPECS, LaurelOptions


def test_it_adds_a_norm_of_a_projection_of_low_rank():
    options, dims = LaurelOptions(rank=3, norm_eps=0.1), Dims({"hidden_size": 8, "vocab_size": 11})
    layer = Laurel.from_options(options, dims)
    layer.norm.weight = mx.random.uniform(0.5, 2, (8,), key=mx.random.key(0))
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    assert {name: value.shape for name, value in p.items()} == SPECS[0].params(options, dims)
    x = mx.random.normal((2, 5, 8), key=mx.random.key(1))
    inner = np.array(x, np.float64) @ p["left_proj.weight"].T @ p["right_proj.weight"].T
    want = np.array(x) + inner / np.sqrt((inner**2).mean(-1, keepdims=True) + 0.1) * p["norm.weight"]
    np.testing.assert_allclose(np.array(layer(x)), want, atol=1e-5)
