"""Norms against float64 NumPy; gradients, dtypes, declared parameters."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.norms import LayerNorm, RMSNorm
from axon_core.specs.norms import SPECS, LayerNormOptions, RMSNormOptions

DIMS = Dims({"hidden_size": 24, "vocab_size": 8})
RMS, LAYER = (next(spec for spec in SPECS if spec.name == name) for name in ("rms_norm", "layer_norm"))
CLASSES = {"rms_norm": RMSNorm, "layer_norm": LayerNorm}
EXAMPLES = [(spec, example) for spec in SPECS if spec.kind == "norm" for example in spec.examples]


def inputs(dtype=mx.float32):
    return (3 * mx.random.normal((2, 5, 24), key=mx.random.key(0)) + 1).astype(dtype)


def build(spec, example):
    norm = CLASSES[spec.name].from_options(spec.options.model_validate(example), DIMS)
    mx.random.seed(1)
    norm.update({name: mx.random.normal((24,)) for name, _ in tree_flatten(norm.parameters())})
    return norm


@pytest.mark.parametrize(("eps", "weight"), [(1e-6, True), (0.5, True), (1e-6, False)])
def test_rms_norm_equals_the_definition(eps, weight):
    norm = build(RMS, {"eps": eps, "weight": weight})
    x = np.array(inputs(), dtype=np.float64)
    want = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * (np.array(norm.weight) if weight else 1.0)
    np.testing.assert_allclose(np.array(norm(inputs())), want, atol=2e-6)


@pytest.mark.parametrize("num_groups", [1, 4])
def test_an_offset_is_added_to_the_scale(num_groups):
    norm = build(RMS, {"offset": 1.0, "eps": 0.5, "num_groups": num_groups})
    x = np.array(inputs(), dtype=np.float64).reshape(2, 5, num_groups, -1)
    want = (x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5)).reshape(2, 5, 24) * (1 + np.array(norm.weight))
    np.testing.assert_allclose(np.array(norm(inputs())), want, atol=3e-6)
    # A fresh one is as if it had no weights.
    np.testing.assert_array_equal(np.array(RMSNorm(24, offset=1.0)(inputs())), np.array(RMSNorm(24)(inputs())))
    for options in (RMSNormOptions, LayerNormOptions):
        with pytest.raises(ValidationError, match="`offset` is added to the learned scale: it needs `weight: true`"):
            options(offset=1.0, weight=False)


def test_an_offset_is_added_in_float32():
    """As Gemma does: in bfloat16, 1 + 0.003 is 1. The result is the definition's, rounded once."""
    norm = RMSNorm(24, offset=1.0)
    norm.weight = mx.full((24,), 0.003, dtype=mx.bfloat16)
    x = inputs(mx.bfloat16)
    wide = np.array(x.astype(mx.float32), dtype=np.float64)
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * (1 + norm.weight[0].item())
    rounded = mx.array(want.astype(np.float32)).astype(mx.bfloat16)
    assert norm(x).dtype == mx.bfloat16
    np.testing.assert_array_equal(np.array(norm(x).astype(mx.float32)), np.array(rounded.astype(mx.float32)))


@pytest.mark.parametrize("weight", [True, False])
def test_groups_are_normalised_each_by_itself(weight):
    norm = build(RMS, {"num_groups": 4, "eps": 0.5, "weight": weight})
    x = np.array(inputs(), dtype=np.float64)
    parts = [part / np.sqrt((part**2).mean(-1, keepdims=True) + 0.5) for part in np.split(x, 4, axis=-1)]
    want = np.concatenate(parts, axis=-1) * (np.array(norm.weight) if weight else 1.0)
    np.testing.assert_allclose(np.array(norm(inputs())), want, atol=2e-6)
    with pytest.raises(ValueError, match=r"`hidden_size` \(24\) is not a multiple of `num_groups` \(7\)"):
        RMS.params(RMSNormOptions(num_groups=7), DIMS)


@pytest.mark.parametrize(
    ("eps", "weight", "bias", "offset"),
    [(1e-5, True, True, 0.0), (0.5, True, False, 0.0), (1e-5, False, False, 0.0), (0.5, True, True, 1.0)],
)
def test_layer_norm_equals_the_definition(eps, weight, bias, offset):
    norm = build(LAYER, {"eps": eps, "weight": weight, "bias": bias, "offset": offset})
    x = np.array(inputs(), dtype=np.float64)
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    want = want * (np.array(norm.weight) + offset if weight else 1.0) + (np.array(norm.bias) if bias else 0.0)
    np.testing.assert_allclose(np.array(norm(inputs())), want, atol=2e-6)


def test_a_centred_norm_is_a_layer_norm_without_a_shift():
    norm = build(RMS, {"center": True, "eps": 0.5, "offset": 1.0})
    other = build(LAYER, {"bias": False, "eps": 0.5, "offset": 1.0})
    np.testing.assert_array_equal(np.array(norm(inputs())), np.array(other(inputs())))
    with pytest.raises(ValidationError, match="`center` needs `num_groups: 1`"):
        RMSNormOptions(center=True, num_groups=2)


@pytest.mark.parametrize(("spec", "example"), EXAMPLES)
def test_declared_parameters_are_the_built_ones_and_learn(spec, example):
    norm = build(spec, example)
    built = {name: array.shape for name, array in tree_flatten(norm.parameters())}
    assert built == spec.params(spec.options.model_validate(example), DIMS)
    if built:
        weights = mx.random.normal((2, 5, 24), key=mx.random.key(2))
        _, grads = nn.value_and_grad(norm, lambda m: (m(inputs()) * weights).sum())(norm)
        for _, grad in tree_flatten(grads):
            assert mx.isfinite(grad).all()
            assert mx.abs(grad).max() > 1e-3


@pytest.mark.parametrize(("spec", "example"), EXAMPLES)
def test_bfloat16_in_bfloat16_out(spec, example):
    norm = build(spec, example)
    want = np.array(norm(inputs()))
    norm.set_dtype(mx.bfloat16)
    got = norm(inputs(mx.bfloat16))
    assert got.dtype == mx.bfloat16
    # Inputs, weights and result are each rounded to 8 bits: three times 2^-9 of values up to 10.
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), want, atol=0.06)


def test_documented_constructor_and_defaults():
    norm = RMSNorm(8)
    assert (norm.eps, norm.weight.tolist()) == (1e-6, [1.0] * 8)
    assert RMSNorm(8, 1e-3).eps == 1e-3
    assert (RMSNormOptions().eps, LayerNormOptions().eps) == (1e-6, 1e-5)
    assert [spec.name for spec in SPECS if spec.default] == ["rms_norm"]


@pytest.mark.parametrize("eps", [0.0, -1e-6, float("nan"), True, "1e-6"])
def test_eps_must_be_a_positive_number(eps):
    with pytest.raises(ValidationError):
        RMSNormOptions.model_validate({"eps": eps})
