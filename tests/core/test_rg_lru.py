"""Griffin's recurrent block against a float64 forward pass and mlx-lm's, cut, padded and continued."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import recurrent_gemma
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_dirty_padding,
    check_low_precision,
    close,
    parameters,
    recurrent_tests,
    sequence,
    softplus,
    stirred,
)

from axon_compose.registry import Dims
from axon_core.rg_lru import RGLRU, GriffinRecurrent
from axon_core.specs.rg_lru import SPECS, RGLRUOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
VARIANTS = [{"num_heads": 3}, {"num_heads": 2, "lru_width": 18, "d_conv": 2}, {"num_heads": 1, "d_conv": 1}]


def build(options):
    mx.random.seed(0)
    return stirred(GriffinRecurrent.from_options(RGLRUOptions.model_validate(options), DIMS))


def sigmoid(v):
    return np.exp(-np.logaddexp(0, -v))


def reference(layer, x):
    """The block in float64, token by token."""
    p = parameters(layer)
    x = np.array(x, np.float64)
    branch = x @ p["linear_y.weight"].T + p["linear_y.bias"]
    branch = 0.5 * branch * (1 + np.tanh(np.sqrt(2 / np.pi) * (branch + 0.044715 * branch**3)))
    taps = p["conv_1d.weight"][..., 0]
    width, length = taps.shape[1], x.shape[1]
    padded = np.pad(x @ p["linear_x.weight"].T + p["linear_x.bias"], [(0, 0), (width - 1, 0), (0, 0)])
    u = sum(padded[:, k : k + length] * taps[:, k] for k in range(width)) + p["conv_1d.bias"]
    heads = u.reshape(*x.shape[:2], len(p["rg_lru.input_gate_weight"]), -1)
    let_in, forgets = (
        sigmoid(np.einsum("blhi,hij->blhj", heads, p[f"rg_lru.{name}_gate_weight"]) + p[f"rg_lru.{name}_gate_bias"])
        for name in ("input", "recurrent")
    )
    log_a = -8 * forgets.reshape(u.shape) * softplus(p["rg_lru.recurrent_param"])
    scale = np.sqrt(-np.expm1(2 * log_a))
    scale[:, 0] = 1
    driven, h, y = scale * let_in.reshape(u.shape) * u, np.zeros_like(u[:, 0]), np.zeros_like(u)
    for t in range(length):
        h = np.exp(log_a[:, t]) * h + driven[:, t]
        y[:, t] = h
    return (
        (y * branch) @ p["linear_out.weight"].T + p["linear_out.bias"],
        padded[:, padded.shape[1] - width + 1 :],
        h,
        np.full((len(x), 1), length),
    )


@pytest.mark.parametrize("length", [1, 2, 33, 70])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_equals_the_float64_layer(options, length):
    layer, x = build(options), sequence(length=length)
    y, cache = layer(x)
    assert isinstance(cache, list)
    for found, expected in zip((y, *cache), reference(layer, x), strict=True):
        close(found, expected)


# Rows of a batch begin in different calls too, each with a first token that comes in whole.
TestRecurrence = recurrent_tests(build, lambda options: reference, VARIANTS, 3)


@pytest.mark.parametrize("options", VARIANTS[:2], ids=str)
def test_it_is_the_block_of_mlx_lm(options):
    layer = build(options)
    o = RGLRUOptions.model_validate(options)
    theirs = recurrent_gemma.RecurrentBlock(HIDDEN, o.num_heads, o.lru_width, o.d_conv)
    theirs.load_weights(tree_flatten(layer.parameters()))
    mine, other = ArraysCache(3), ArraysCache(2)
    for part in mx.split(sequence(length=60), [40, 41, 50], axis=1):
        close(layer(part, None, mine)[0], theirs(part, other), 1e-5)
    for number in range(2):
        close(mine[number], other[number], 1e-5)


@pytest.mark.parametrize("shift", [-1e4, -100, -14, 14, 100, 1e4])
def test_gates_beyond_any_exponential_stay_exact(shift):
    """Shut, the state stays as it is and nothing comes in; open wide, almost everything is forgotten."""
    layer, x = build(VARIANTS[0]), sequence(length=100)
    layer.rg_lru.recurrent_gate_bias = layer.rg_lru.recurrent_gate_bias + shift
    y, cache = layer(x)
    for found, expected in zip((y, *cache), reference(layer, x), strict=True):
        close(found, expected, 1e-5)
    gradients = nn.value_and_grad(layer, lambda x: layer(x)[0].sum())(x)[1]
    for name, gradient in tree_flatten(gradients):
        assert mx.isfinite(gradient).all(), name


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(VARIANTS[0]), reference)


def test_low_precision_keeps_its_type_and_a_float32_state():
    check_low_precision(build(VARIANTS[0]), reference, SPEC, [mx.bfloat16, mx.float32, mx.float32], 0.03)


def test_decays_start_as_in_the_paper():
    mx.random.seed(0)
    p = np.array(RGLRU(4000, 2).recurrent_param, np.float64)
    decays = np.exp(-8 * softplus(p))
    assert 0.9 <= decays.min() < 0.901
    assert 0.998 < decays.max() <= 0.9991
    # Evenly over the ring between both circles.
    assert np.mean(decays**2) == pytest.approx((0.9**2 + 0.999**2) / 2, rel=0.01)


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = RGLRUOptions.model_validate(example)
    check_declared(SPEC, GriffinRecurrent.from_options(options, dims), options, dims)
    RGLRUOptions.model_validate(shrunk(SPEC, example))


def test_sizes_of_a_published_model_are_those_of_its_checkpoint():
    """recurrentgemma-2b: hidden size 2560 and ten heads."""
    shapes = SPEC.params(RGLRUOptions(num_heads=10, lru_width=2560), Dims({"hidden_size": 2560, "vocab_size": 8}))
    assert shapes["rg_lru.input_gate_weight"] == (10, 256, 256)
    assert shapes["conv_1d.weight"] == (2560, 4, 1)
    assert shapes["linear_out.bias"] == (2560,)


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`hidden_size` \(12\) is not a multiple of `num_heads` \(5\)"):
        SPEC.params(RGLRUOptions(num_heads=5), DIMS)
    with pytest.raises(ValueError, match=r"`lru_width` \(16\) is not a multiple of `num_heads` \(3\)"):
        SPEC.params(RGLRUOptions(num_heads=3, lru_width=16), DIMS)
    with pytest.raises(ValidationError, match="greater than 0"):
        RGLRUOptions(num_heads=2, d_conv=0)
