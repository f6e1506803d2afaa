"""A matrix in the place of a layer."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from axon_compose.registry import Dims
from axon_core.projection import Projection
from axon_core.specs.linear import LinearOptions


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_a_product_and_a_sum(bias: bool) -> None:
    layer = Projection.from_options(LinearOptions(bias=bias), Dims({"hidden_size": 6}))
    x = np.random.default_rng(0).standard_normal((2, 3, 6)).astype(np.float32)
    weight = np.array(layer.linear.weight)
    if bias:
        layer.linear.bias = mx.arange(6, dtype=mx.float32)
    expected = x @ weight.T + (np.arange(6) if bias else 0)
    np.testing.assert_allclose(np.array(layer(mx.array(x))), expected, rtol=1e-5, atol=1e-5)
    assert ("bias" in layer.linear) == bias
