"""Feed-forward layers against float64."""

from __future__ import annotations

from math import erf, pi, sqrt

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.mlp import MLP
from axon_core.specs.mlp import SPECS, MLPOptions

(SPEC,) = SPECS

ACTIVATIONS = {
    "silu": lambda v: v / (1 + np.exp(-v)),
    "gelu": lambda v: 0.5 * v * (1 + np.vectorize(erf)(v / sqrt(2))),
    "gelu_tanh": lambda v: 0.5 * v * (1 + np.tanh(sqrt(2 / pi) * (v + 0.044715 * v**3))),
    "relu": lambda v: np.maximum(v, 0),
    "relu2": lambda v: np.maximum(v, 0) ** 2,
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_equals_float64(activation, gated, bias):
    mx.random.seed(0)
    layer = MLP(6, 10, activation, gated, bias)
    # Wide enough that the two forms of gelu differ by more than the tolerance.
    x = 6 * mx.random.normal((2, 5, 6))
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    assert {name.rpartition(".")[2] for name in p} == ({"weight", "bias"} if bias else {"weight"})

    def linear(name, v):
        return v @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)

    v = np.array(x, np.float64)
    act = ACTIVATIONS[activation]
    inner = act(linear("gate_proj", v)) * linear("up_proj", v) if gated else act(linear("up_proj", v))
    expected = linear("down_proj", inner)
    assert np.abs(np.array(layer(x)) - expected).max() < 5e-6 * np.abs(expected).max()


def test_low_precision_keeps_its_type():
    layer = MLP(6, 10)
    layer.set_dtype(mx.bfloat16)
    assert layer(mx.ones((1, 2, 6), mx.bfloat16)).dtype == mx.bfloat16


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built_and_gradients_reach_it(example):
    options, dims = MLPOptions.model_validate(example), Dims({"hidden_size": 12, "vocab_size": 8})
    mx.random.seed(0)
    layer = MLP.from_options(options, dims)
    assert {name: value.shape for name, value in tree_flatten(layer.parameters())} == SPEC.params(options, dims)
    grads = nn.value_and_grad(layer, lambda x: layer(x).square().sum())(mx.random.normal((1, 4, 12)))[1]
    assert all(mx.abs(value).max() > 0 for _, value in tree_flatten(grads))
    MLPOptions.model_validate(SPEC.shrink(dict(example)))


@pytest.mark.parametrize(
    "options", [{}, {"intermediate_size": 0}, {"intermediate_size": 8, "activation": "swish"}], ids=str
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        MLPOptions.model_validate(options)
