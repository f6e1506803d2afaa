"""Products in both forms against float64 NumPy, with gradients; and the recipes that find layers by their class."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_core.linear
from axon_core.linear import Embedding, Linear, product, transposed_factor

SHAPES = [(5,), (1, 5), (7, 5), (8, 5), (2, 9, 5), (2, 3, 4, 5)]


@pytest.fixture(params=["reference", "other"])
def blas(request, monkeypatch):
    monkeypatch.setattr(axon_core.linear, "is_reference_blas", lambda: request.param == "reference")
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield request.param
    mx.set_default_device(before)


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(blas, shape):
    x, weight, out = normal(*shape), normal(3, 5, seed=1), normal(*shape[:-1], 3, seed=2)
    y, (dx, dw) = mx.value_and_grad(lambda x, w: (out * product(x, w)).sum(), argnums=(0, 1))(x, weight)
    X, W, G = (np.array(a, dtype=np.float64) for a in (x, weight, out))
    np.testing.assert_allclose(np.array(product(x, weight)), X @ W.T, atol=1e-5)
    np.testing.assert_allclose(float(y), (G * (X @ W.T)).sum(), rtol=1e-5)
    np.testing.assert_allclose(np.array(dx), G @ W, atol=1e-5)
    np.testing.assert_allclose(np.array(dw), G.reshape(-1, 3).T @ X.reshape(-1, 5), atol=1e-5)


def test_the_gradient_of_a_matrix_lies_as_the_matrix_does(blas):
    """A transposed one makes every sum and every step of an optimiser twice as long."""
    x, weight = normal(2, 9, 5), normal(3, 5, seed=1)
    gradient = mx.grad(lambda w: product(x, w).sum())(weight)
    mx.eval(gradient)
    assert np.array(gradient, copy=False).flags.c_contiguous


def test_other_types_have_gradients_of_theirs(blas):
    for types in ((mx.bfloat16, mx.float32), (mx.float32, mx.bfloat16), (mx.bfloat16, mx.bfloat16)):
        x, weight = normal(9, 5).astype(types[0]), normal(3, 5, seed=1).astype(types[1])
        gradients = mx.grad(lambda x, w: product(x, w).sum(), argnums=(0, 1))(x, weight)
        assert tuple(each.dtype for each in gradients) == types


def test_the_form_follows_the_library(monkeypatch):
    """Both forms give the same number, so only the graph tells which one was taken."""
    taken = []
    original = axon_core.linear._transposed_product
    monkeypatch.setattr(axon_core.linear, "_transposed_product", lambda x, w: taken.append(x.shape) or original(x, w))
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    for reference in (False, True):
        monkeypatch.setattr(axon_core.linear, "is_reference_blas", lambda reference=reference: reference)
        product(normal(2, 4, 5), normal(3, 5))
        product(normal(7, 5), normal(3, 5))
        product(normal(2, 4, 5).astype(mx.bfloat16), normal(3, 5).astype(mx.bfloat16))
        product(normal(2, 4, 5).astype(mx.bfloat16), normal(3, 5))
    assert taken == [(8, 5)]


def test_transposes(blas):
    matrices = normal(2, 3, 4)
    assert mx.array_equal(transposed_factor(matrices), matrices.swapaxes(-1, -2))
    assert transposed_factor(matrices.astype(mx.float16)).dtype == mx.float16


@pytest.mark.parametrize("bias", [False, True])
def test_layer(blas, bias):
    mx.random.seed(0)
    layer = Linear(5, 3, bias=bias)
    plain = nn.Linear(5, 3, bias=bias)
    plain.update(layer.parameters())
    x = normal(2, 9, 5)
    assert mx.allclose(layer(x), plain(x), atol=1e-6)
    assert {name for name, _ in tree_flatten(layer.parameters())} == {"weight"} | ({"bias"} if bias else set())


def test_table(blas):
    table = Embedding(11, 5)
    x = normal(2, 9, 5)
    assert mx.allclose(table.as_linear(x), nn.Embedding.as_linear(table, x), atol=1e-6)


def test_recipes_find_them():
    from mlx_lm.tuner.lora import LoRALinear

    model = nn.Sequential(Embedding(64, 64), Linear(64, 32))
    assert isinstance(LoRALinear.from_base(model.layers[1]).linear, Linear)
    nn.quantize(model, group_size=32, bits=8)
    assert [type(layer).__name__ for layer in model.layers] == ["QuantizedEmbedding", "QuantizedLinear"]
