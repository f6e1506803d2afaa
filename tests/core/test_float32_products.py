"""Products of half-precision and quantised matrices on the CPU: right to a rounding, in MLX's types, with gradients."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.switch_layers import QuantizedSwitchLinear

from axon_core import experts, float32_products
from axon_core.cpu import reference_implementations
from axon_core.experts import ExpertGLU, ExpertLinear, QuantizedExpertLinear
from axon_core.linear import Embedding, Linear, QuantizedEmbedding, QuantizedLinear

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="the CPU alone takes these products")

TYPES = [mx.float32, mx.bfloat16, mx.float16]
types = pytest.mark.parametrize("dtype", TYPES, ids=str)
#: Group size, bits and mode; the first is not quantised.
AFFINE = [(64, 4, "affine"), (32, 3, "affine"), (128, 8, "affine")]
PACKINGS = [None, *AFFINE, (None, None, "mxfp4"), (None, None, "nvfp4")]
packings = pytest.mark.parametrize("packing", PACKINGS, ids=str)
#: Half of the distance of two neighbouring numbers, relative.
ROUNDING = {mx.float32: 2.0**-24, mx.bfloat16: 2.0**-8, mx.float16: 2.0**-11}


@pytest.fixture(autouse=True, params=["OpenBLAS", "reference"])
def _blas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (float32_products, experts):
        monkeypatch.setattr(module, "is_reference_blas", lambda: request.param == "reference")


def made(layer: Any, dtype: mx.Dtype, packing: Any) -> Any:
    layer.set_dtype(dtype)
    return layer if packing is None else layer.to_quantized(*packing)


def exact(layer: Any) -> np.ndarray:
    """The matrix in float64: what its stored numbers mean."""
    weight = layer["weight"]
    if "scales" in layer:
        scales, biases = (a if a is None or a.dtype == mx.uint8 else a.astype(mx.float32) for a in
                          (layer["scales"], layer.get("biases")))  # fmt: skip
        weight = mx.dequantize(weight, scales, biases, layer.group_size, layer.bits, layer.mode, dtype=mx.float32)
    return np.array(weight.astype(mx.float32)).astype(np.float64)


def drawn(shape: tuple[int, ...], dtype: mx.Dtype, seed: int = 0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def numbers(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


@types
@packings
@pytest.mark.parametrize("input_type", TYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 7])
def test_a_product_is_right_to_one_rounding(dtype: mx.Dtype, packing: Any, input_type: mx.Dtype, rows: int) -> None:
    layer = made(Linear(128, 96, bias=False), dtype, packing)
    x = drawn((2, rows, 128), input_type)
    y = layer(x)
    with reference_implementations():
        assert y.dtype == layer(x).dtype
    wanted = numbers(x) @ exact(layer).T
    size = np.abs(numbers(x)) @ np.abs(exact(layer)).T  # what a sum in float32 may lose goes by its terms
    assert (np.abs(numbers(y) - wanted) <= ROUNDING[y.dtype] * np.abs(wanted) * 1.001 + 1e-6 * size).all()


@packings
def test_a_table_is_one_too(packing: Any) -> None:
    table = made(Embedding(96, 128), mx.bfloat16, packing)
    h = drawn((3, 128), mx.bfloat16)
    wanted = numbers(h) @ exact(table).T
    assert np.abs(numbers(table.as_linear(h)) - wanted).max() < 2e-2 * np.abs(wanted).max()
    assert numbers(table(mx.array([5, 7]))) == pytest.approx(exact(table)[[5, 7]], abs=2e-3)


@types
@packings
def test_gradients_are_those_of_the_reference(dtype: mx.Dtype, packing: Any) -> None:
    layer = made(Linear(128, 96), dtype, packing)
    x, weights = drawn((6, 128), dtype), drawn((6, 96), mx.float32, seed=1)

    def loss(x: mx.array) -> mx.array:
        return (layer(x).astype(mx.float32) * weights).sum()

    wanted = numbers(weights.astype(dtype)) @ exact(layer)
    found = mx.grad(loss)(x)
    assert found.dtype == x.dtype
    assert np.abs(numbers(found) - wanted).max() < 3 * ROUNDING[dtype] * np.abs(wanted).max() + 1e-5


@types
def test_a_matrix_is_trained(dtype: mx.Dtype) -> None:
    layer = made(Linear(128, 96), dtype, None)
    x, weights = drawn((6, 128), dtype), drawn((6, 96), mx.float32, seed=1)
    gradients = nn.value_and_grad(layer, lambda x: (layer(x).astype(mx.float32) * weights).sum())(x)[1]
    wanted = numbers(weights.astype(dtype)).T @ numbers(x)
    assert gradients["weight"].dtype == dtype
    assert np.abs(numbers(gradients["weight"]) - wanted).max() < 3 * ROUNDING[dtype] * np.abs(wanted).max() + 1e-5


@types
def test_scales_are_trained_as_distillation_does(dtype: mx.Dtype) -> None:
    layer = made(Linear(128, 96, bias=False), dtype, (32, 4, "affine"))
    layer.unfreeze(keys=["scales", "biases"])
    x, weights = drawn((6, 128), dtype), drawn((6, 96), dtype, seed=1)
    found = nn.value_and_grad(layer, lambda x: (layer(x) * weights).astype(mx.float32).sum())(x)[1]
    towards = (numbers(weights).T @ numbers(x)).reshape(96, 4, 32)
    ones, zeros = mx.ones((96, 4)), mx.zeros((96, 4))
    steps = numbers(mx.dequantize(layer["weight"], ones, zeros, 32, 4)).reshape(96, 4, 32)
    for name, wanted in (("scales", (towards * steps).sum(axis=-1)), ("biases", towards.sum(axis=-1))):
        assert found[name].dtype == dtype
        assert np.abs(numbers(found[name]) - wanted).max() < (ROUNDING[dtype] + 1e-5) * np.abs(wanted).max()


@packings
def test_a_large_matrix_is_taken_in_stretches(packing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = made(Linear(128, 96), mx.bfloat16, packing)
    x = drawn((5, 128), mx.bfloat16)
    whole = layer(x)
    monkeypatch.setattr(float32_products, "_STRETCH", 128 * 36)  # three stretches, the last shorter
    assert mx.array_equal(layer(x), whole)


@pytest.mark.parametrize("dtype", TYPES[1:], ids=str)
def test_other_transforms_of_a_plain_matrix(dtype: mx.Dtype) -> None:
    layer = made(Linear(128, 96), dtype, None)
    x = drawn((5, 128), dtype)
    assert mx.allclose(mx.vmap(layer)(x), layer(x), atol=2e-2)
    assert mx.array_equal(mx.compile(layer)(x), layer(x))
    (found,), (towards,) = mx.jvp(layer, [x], [mx.ones_like(x)])
    assert np.abs(numbers(towards) - exact(layer).sum(axis=1)).max() < 2e-2
    assert mx.array_equal(found, layer(x))


@pytest.mark.parametrize("packing", PACKINGS[:2], ids=str)
def test_no_second_table_is_in_memory(packing: Any) -> None:
    rows, width = 1 << 17, 256
    table = made(Embedding(rows, width), mx.bfloat16, packing)
    h = drawn((4, width), mx.bfloat16)
    mx.eval(table.parameters(), h)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(table.as_linear(h))
    assert mx.get_peak_memory() - before < 100e6  # all of it would be 134 MB


@types
@pytest.mark.parametrize("packing", [*AFFINE[:2], (32, 4, "mxfp4")], ids=str)
@pytest.mark.parametrize("tokens", [1, 40])
def test_quantised_experts(dtype: mx.Dtype, packing: Any, tokens: int) -> None:
    layer = ExpertGLU(64, 128, 4)
    layer.set_dtype(dtype)
    nn.quantize(layer, *(packing[:2]), mode=packing[2])
    assert isinstance(layer.gate_proj, QuantizedExpertLinear)
    layer.eval()
    x, indices = drawn((1, tokens, 64), dtype), mx.random.randint(0, 4, (1, tokens, 2), key=mx.random.key(2))
    found = layer(x, indices)
    with reference_implementations():
        wanted = layer(x, indices)
    assert found.dtype == wanted.dtype
    scale = np.abs(numbers(wanted)).max()
    assert np.abs(numbers(found) - numbers(wanted)).max() < 16 * ROUNDING[dtype] * scale + 1e-5 * scale


def test_tools_take_them_for_their_originals() -> None:
    assert type(Linear(64, 64).to_quantized()) in {nn.QuantizedLinear}
    assert isinstance(Linear(64, 64).to_quantized(), QuantizedLinear)
    assert isinstance(Embedding(64, 64).to_quantized(), QuantizedEmbedding)
    assert type(ExpertLinear(64, 64, 2).to_quantized()) in {QuantizedSwitchLinear}
    assert not hasattr(Linear(48, 64), "to_quantized")
