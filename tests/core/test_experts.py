"""Expert matrices in every type, quantised, adapted and compiled, against a loop over rows."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchGLU, SwitchLinear, SwitchMLP
from mlx_lm.tuner.lora import LoRASwitchLinear

from axon_core.experts import ExpertGLU, ExpertLinear, ExpertMLP

EXPERTS, INPUT, OUTPUT = 4, 64, 32
ROUNDING = {mx.float32: 2e-6, mx.bfloat16: 2**-8, mx.float16: 2**-11}


def build(dtype=mx.float32, bias=True):
    mx.random.seed(0)
    layer = ExpertLinear(INPUT, OUTPUT, EXPERTS, bias=bias)
    if bias:
        layer.bias = mx.random.normal(layer.bias.shape)
    layer.set_dtype(dtype)
    return layer


def rows(count, dtype=mx.float32):
    rng = np.random.default_rng(count)
    x = mx.array(rng.normal(size=(count, 1, INPUT)).astype(np.float32)).astype(dtype)
    return x, mx.array(np.sort(rng.integers(0, EXPERTS, count)).astype(np.uint32))


def loop(layer, x, indices):
    weight = np.array(layer.weight.astype(mx.float32), np.float64)
    bias = np.array(layer.bias.astype(mx.float32), np.float64) if "bias" in layer else np.zeros((EXPERTS, OUTPUT))
    x = np.array(x.astype(mx.float32), np.float64)
    return np.stack([x[i] @ weight[e].T + bias[e] for i, e in enumerate(indices.tolist())])


def close(found, expected, limit):
    assert np.abs(np.array(found.astype(mx.float32)) - expected).max() <= limit * np.abs(expected).max()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, EXPERTS, EXPERTS + 1, 100])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_every_row_is_multiplied_by_its_expert(dtype, count, bias):
    layer = build(dtype, bias)
    x, indices = rows(count, dtype)
    y = layer(x, indices, sorted_indices=True)
    assert y.dtype == dtype
    close(y, loop(layer, x, indices), ROUNDING[dtype])


def test_the_matrices_have_the_type_of_the_model_and_not_always_float16():
    layer = ExpertGLU(INPUT, OUTPUT, EXPERTS, bias=True)
    assert {value.dtype for _, value in tree_flatten(layer.parameters())} == {mx.float32}
    layer.set_dtype(mx.bfloat16)
    assert {value.dtype for _, value in tree_flatten(layer.parameters())} == {mx.bfloat16}


def test_a_decode_step_converts_the_used_matrices_only():
    layer = ExpertLinear(256, 256, 64, bias=False)
    layer.set_dtype(mx.bfloat16)
    x = mx.ones((1, 1, 1, 1, 256), mx.bfloat16)
    indices = mx.array([[[3, 40]]])
    mx.eval(layer.parameters(), x, indices)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(layer(x, indices))
    assert mx.get_peak_memory() - before < 4 * 2 * 256 * 256 * 4 < 64 * 256 * 256 * 4


@pytest.mark.parametrize("count", [2, 100])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_gradients_equal_those_of_the_loop(dtype, count):
    layer = build(dtype)
    x, indices = rows(count, dtype)
    value = nn.value_and_grad(layer, lambda x: (layer(x, indices).astype(mx.float32) ** 2).sum())
    grads = dict(tree_flatten(value(x)[1]))
    outer = 2 * loop(layer, x, indices)
    expected = np.zeros((EXPERTS, OUTPUT, INPUT))
    for i, expert in enumerate(indices.tolist()):
        expected[expert] += outer[i].T @ np.array(x[i].astype(mx.float32), np.float64)
    # In bfloat16 the output, its gradient and the sum over rows are each rounded.
    close(grads["weight"], expected, 4 * ROUNDING[dtype])
    assert grads["weight"].dtype == dtype


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [ExpertGLU, ExpertMLP])
@pytest.mark.parametrize("tokens", [1, 3, 50])
def test_expert_layers_are_those_of_mlx_lm(kind, tokens, bias, training):
    mx.random.seed(0)
    layer = kind(INPUT, OUTPUT, EXPERTS, "silu", bias)
    base = {ExpertGLU: SwitchGLU, ExpertMLP: SwitchMLP}[kind]
    assert isinstance(layer, base)
    other = base(INPUT, OUTPUT, EXPERTS, *([nn.silu] if kind is ExpertMLP else []), bias=bias)
    if bias:
        layer.update(tree_map(lambda a: mx.random.normal(a.shape) / 4, layer.parameters()))
    other.load_weights(tree_flatten(layer.parameters()))
    layer.train(training)
    x = mx.random.normal((2, tokens, INPUT))
    indices = mx.random.randint(0, EXPERTS, (2, tokens, 2))
    expected = np.array(other(x, indices))
    np.testing.assert_allclose(
        np.array(layer(x, indices)), expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max())
    )


@pytest.mark.parametrize("tokens", [1, 50])
def test_the_gate_gets_the_activation(tokens):
    mx.random.seed(0)
    layer = ExpertGLU(INPUT, OUTPUT, EXPERTS, "relu")
    layer.gate_proj.weight = mx.zeros_like(layer.gate_proj.weight) - 1.0
    x = mx.abs(mx.random.normal((1, tokens, INPUT)))
    assert mx.abs(layer(x, mx.zeros((1, tokens, 2), mx.uint32))).max() == 0


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_compiled_it_does_the_same(dtype):
    layer = build(dtype)
    x, indices = rows(3, dtype)
    compiled = mx.compile(lambda x, i: layer(x, i))
    np.testing.assert_array_equal(
        np.array(compiled(x, indices).astype(mx.float32)), np.array(layer(x, indices).astype(mx.float32))
    )


# The scales are rounded to the type of the model, and the CPU adds up products in it too.
@pytest.mark.parametrize(("dtype", "limit"), [(mx.float32, 2e-6), (mx.float16, 0.01), (mx.bfloat16, 0.1)], ids=str)
def test_quantisation_finds_it_and_is_close(dtype, limit):
    model = nn.Module()
    model.experts = build(dtype)
    x, indices = rows(20, dtype)
    nn.quantize(model, group_size=32, bits=8)
    assert isinstance(model.experts, QuantizedSwitchLinear)
    layer = model.experts
    y = layer(x, indices)
    assert y.dtype == dtype
    whole = build(dtype)
    close(y, loop(whole, x, indices), 0.01 + limit)
    whole.weight = mx.dequantize(layer.weight, layer.scales, layer.biases, 32, 8)
    close(y, loop(whole, x, indices), limit)


def test_a_lora_step_trains_the_adapter_alone_and_lowers_the_loss():
    layer = build()
    assert isinstance(layer, SwitchLinear)
    layer.freeze()
    adapted = LoRASwitchLinear.from_base(layer, r=2)
    x, indices = rows(20)
    np.testing.assert_array_equal(np.array(adapted(x, indices)), np.array(layer(x, indices)))
    before = np.array(layer.weight)

    def loss(x):
        return adapted(x, indices).square().mean()

    step = nn.value_and_grad(adapted, loss)
    first, grads = step(x)
    assert {name for name, _ in tree_flatten(grads)} == {"lora_a", "lora_b"}
    assert mx.abs(grads["lora_b"]).max() > 0
    adapted.lora_b = adapted.lora_b - 1e-3 * grads["lora_b"]
    assert loss(x) < first
    np.testing.assert_array_equal(np.array(layer.weight), before)
    np.testing.assert_allclose(np.array(adapted.fuse()(x, indices)), np.array(adapted(x, indices)), atol=1e-5)
