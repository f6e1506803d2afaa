"""Feed-forward layers against float64."""

from __future__ import annotations

from math import erf, pi, sqrt

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from pydantic import ValidationError

from axon_compose.registry import Dims, Shard
from axon_core.mlp import MLP, _above
from axon_core.specs.mlp import SPECS, MLPOptions

(SPEC,) = SPECS

ACTIVATIONS = {
    "silu": lambda v: v / (1 + np.exp(-v)),
    "gelu": lambda v: 0.5 * v * (1 + np.vectorize(erf)(v / sqrt(2))),
    "gelu_tanh": lambda v: 0.5 * v * (1 + np.tanh(sqrt(2 / pi) * (v + 0.044715 * v**3))),
    "gelu_quick": lambda v: v / (1 + np.exp(-1.702 * v)),
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


def test_a_sparse_gate_keeps_what_is_above_a_quantile():
    """95 % of a normal distribution are below its mean and 1.6449 deviations."""
    mx.random.seed(0)
    layer = MLP(6, 40, "gelu_tanh", sparsity=0.95)
    x = mx.random.normal((2, 5, 6))
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    gate, up = (np.array(x, np.float64) @ p[f"{name}_proj.weight"].T for name in ("gate", "up"))
    cutoff = gate.mean(-1, keepdims=True) + gate.std(-1, keepdims=True) * 1.6448536269514722
    kept = np.maximum(gate - cutoff, 0)
    assert 0 < (kept > 0).mean() < 0.1
    expected = (ACTIVATIONS["gelu_tanh"](kept) * up) @ p["down_proj.weight"].T
    assert np.abs(np.array(layer(x)) - expected).max() < 5e-6 * np.abs(expected).max()


def test_a_sparse_gate_of_large_numbers_keeps_its_quantile_in_float16():
    """Their sum and their squares are no float16, their mean and deviation are."""
    gate = mx.array(3000 + np.random.default_rng(0).standard_normal((4, 512)), dtype=mx.float16)
    exact = np.array(gate.astype(mx.float32), np.float64)
    cutoff = exact.mean(-1, keepdims=True) + exact.std(-1, keepdims=True) * 1.6448536269514722
    got = np.array(_above(gate, 1.6448536269514722, Shard()).astype(mx.float32))
    assert np.abs(got - np.maximum(exact - cutoff, 0)).max() < 1.1  # half of what float16 distinguishes there


def test_xielu_equals_float64():
    layer = MLP(6, 10, "xielu", gated=False)
    layer.act_fn.alpha_p, layer.act_fn.alpha_n = mx.array([0.3]), mx.array([-0.7])
    layer.act_fn.beta = mx.array(0.4)
    x = 3 * mx.random.normal((2, 5, 6))
    up, down = np.array(layer.up_proj.weight, np.float64), np.array(layer.down_proj.weight, np.float64)
    v = np.array(x, np.float64) @ up.T
    a, c = np.log1p(np.exp(0.3)), 0.4 + np.log1p(np.exp(-0.7))
    inner = np.where(v > 0, a * v * v, c * (np.expm1(np.minimum(v, -1e-6)) - v)) + 0.4 * v
    expected = inner @ down.T
    assert np.abs(np.array(layer(x)) - expected).max() < 5e-6 * np.abs(expected).max()


def test_constants_of_xielu_are_never_trained():
    layer = MLP(6, 10, "xielu", gated=False)
    learned = {name for name, _ in tree_flatten(layer.trainable_parameters()) if name.startswith("act_fn")}
    assert learned == {"act_fn.alpha_p", "act_fn.alpha_n"}
    layer.unfreeze()
    grads = nn.value_and_grad(layer, lambda x: layer(x).square().sum())(mx.random.normal((1, 4, 6)))[1]
    assert grads["act_fn"]["beta"] == grads["act_fn"]["eps"] == 0


@pytest.mark.parametrize("activation", ["silu", "swiglu_oai"])
def test_the_gate_is_scaled_before_its_activation(activation):
    layer = MLP(6, 10, activation, bias=True, gate_scale=0.3)
    scaled = MLP(6, 10, activation, bias=True)
    weights = dict(tree_flatten(layer.parameters()))
    scaled.load_weights([(n, w * 0.3 if n.startswith("gate") else w) for n, w in weights.items()])
    x = mx.random.normal((2, 5, 6))
    np.testing.assert_allclose(np.array(layer(x)), np.array(scaled(x)), atol=1e-6)


# Definitions of Hugging Face's names, in its `activations.py`.
@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("gelu_pytorch_tanh", lambda v: 0.5 * v * (1 + np.tanh(sqrt(2 / pi) * (v + 0.044715 * v**3)))),
        ("gelu_new", lambda v: 0.5 * v * (1 + np.tanh(sqrt(2 / pi) * (v + 0.044715 * v**3)))),
        ("gelu_fast", lambda v: 0.5 * v * (1 + np.tanh(v * 0.7978845608 * (1 + 0.044715 * v * v)))),
        ("quick_gelu", lambda v: v / (1 + np.exp(-1.702 * v))),
        ("swish", lambda v: v / (1 + np.exp(-v))),
    ],
)
def test_names_of_hugging_face(name, definition):
    options = MLPOptions.model_validate({"intermediate_size": 1, "gated": False, "activation": name})
    assert options.activation in ACTIVATIONS
    layer = MLP.from_options(options, Dims({"hidden_size": 1, "vocab_size": 8}))
    layer.up_proj.weight = layer.down_proj.weight = mx.ones((1, 1))
    x = np.linspace(-6, 6, 50)
    np.testing.assert_allclose(np.array(layer(mx.array(x)[:, None]))[:, 0], definition(x), atol=2e-6)
    assert name in str(MLPOptions.model_json_schema())


@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("activation", ["silu", "gelu", "swiglu_oai", "swiglu_clipped"])
def test_bounded_products(activation, limit):
    x, gate = mx.array([[-20.0, -0.5, 0.25, 0.75, 9, 30]]), mx.array([[9.0, -1, 0.3, 2, 20, 30]])
    if activation == "swiglu_clipped":
        limit = limit or 1.5
    layer = MLP(6, 6, activation, limit=limit)
    layer.gate_proj.weight, layer.up_proj.weight = mx.diag(gate[0]), mx.diag(x[0])
    layer.down_proj.weight = mx.eye(6)
    g, v, bound = np.array(gate, np.float64), np.array(x, np.float64), limit or np.inf
    if activation == "swiglu_oai":
        bound = limit or 7.0
        g = np.minimum(g, bound)
        expected = g / (1 + np.exp(-1.702 * g)) * (np.clip(v, -bound, bound) + 1)
    elif activation == "swiglu_clipped":
        expected = ACTIVATIONS["silu"](np.minimum(g, limit)) * np.clip(v, -limit, limit)
    else:
        expected = np.minimum(ACTIVATIONS[activation](g), bound) * np.clip(v, -bound, bound)
    np.testing.assert_allclose(np.array(layer(mx.ones((1, 6)))), expected, rtol=2e-6, atol=1e-6)


def test_the_output_has_a_learned_factor():
    mx.random.seed(0)
    layer, x = MLP(6, 10, gain=True), mx.random.normal((2, 5, 6))
    plain = layer(x)
    layer.gain = mx.array([0.25])
    assert mx.array_equal(layer(x), 0.25 * plain)


@pytest.mark.parametrize("gain", [False, True])
def test_low_precision_keeps_its_type(gain):
    layer = MLP(6, 10, gain=gain)
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
    MLPOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"intermediate_size": 0},
        {"intermediate_size": 8, "activation": "mish"},
        {"intermediate_size": 8, "activation": None},
        {"intermediate_size": 8, "gated": False, "gate_scale": 0.5},
        {"intermediate_size": 8, "activation": "swiglu_oai", "gated": False},
        {"intermediate_size": 8, "limit": 1.0, "gated": False},
        {"intermediate_size": 8, "sparsity": 0.5, "gated": False},
        {"intermediate_size": 8, "sparsity": 1.0},
        {"intermediate_size": 8, "activation": "swiglu_clipped"},
        {"intermediate_size": 8, "activation": "xielu"},
    ],
    ids=str,
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        MLPOptions.model_validate(options)
