"""A norm that a small network of its output gates, against float64 NumPy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from axon_compose.registry import Dims
from axon_core.self_gated_norm import SelfGatedNorm
from axon_core.specs.self_gated_norm import SPECS, SelfGatedNormOptions


def test_its_output_is_gated_by_a_network_of_it():
    options, dims = SelfGatedNormOptions(rank=3, eps=0.1), Dims({"hidden_size": 8, "vocab_size": 11})
    layer = SelfGatedNorm.from_options(options, dims)
    layer.norm.weight = mx.random.uniform(0.5, 2, (8,), key=mx.random.key(0))
    layer.up_proj.weight = mx.random.normal((8, 3), key=mx.random.key(2))
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    assert {name: value.shape for name, value in p.items()} == SPECS[0].params(options, dims)
    x = mx.random.normal((2, 5, 8), key=mx.random.key(1))
    z = np.array(x, np.float64)
    n = z / np.sqrt((z**2).mean(-1, keepdims=True) + 0.1) * p["norm.weight"]
    inner = n @ p["down_proj.weight"].T
    gate = inner / (1 + np.exp(-inner)) @ p["up_proj.weight"].T
    np.testing.assert_allclose(np.array(layer(x)), n / (1 + np.exp(-gate)), atol=1e-6)
