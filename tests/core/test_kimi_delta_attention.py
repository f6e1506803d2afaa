"""Kimi delta attention against a float64 forward pass and mlx-lm's layer, cut, padded and continued."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import kimi_linear
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_dirty_padding,
    check_low_precision,
    close,
    convolved,
    parameters,
    recurrent_tests,
    sequence,
    softplus,
    stirred,
)

from axon_compose.registry import Dims
from axon_core.gated_delta import gated_delta_rule
from axon_core.kimi_delta_attention import KimiDeltaAttention
from axon_core.specs.kimi_delta_attention import SPECS, KimiDeltaAttentionOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
BASE = {"num_heads": 3, "head_dim": 4}
VARIANTS = [
    BASE,
    BASE | {"num_heads": 2, "head_dim": 6, "d_conv": 2, "norm_eps": 1e-2},
    BASE | {"d_conv": 1, "low_rank_dim": 5},
    BASE | {"full_rank": True, "lower_bound": -2.5},
    BASE | {"full_rank": {"decay": True}, "low_rank_dim": 5, "neg_eigval": True},
]


def build(options):
    mx.random.seed(0)
    return stirred(KimiDeltaAttention.from_options(KimiDeltaAttentionOptions.model_validate(options), DIMS))


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def projected(name, p, x):
    if f"{name}_proj.weight" in p:
        return x @ p[f"{name}_proj.weight"].T
    return x @ p[f"{name}_a_proj.weight"].T @ p[f"{name}_b_proj.weight"].T


def reference_of(options):
    """The layer of these options in float64, token by token."""
    o = KimiDeltaAttentionOptions.model_validate(options)

    def reference(layer, x):
        p = parameters(layer)
        x = np.array(x, np.float64)
        shape = (*x.shape[:2], o.num_heads, o.head_dim)
        states, heads = [], []
        for name in "qkv":
            taps = {"conv1d.weight": p[f"{name}_conv.conv.weight"]}
            y, state = convolved(taps, x @ p[f"{name}_proj.weight"].T)
            heads.append(y.reshape(shape))
            states.append(state)
        q, k, v = heads
        q, k = (a / np.sqrt((a**2).sum(-1, keepdims=True) + 1e-6) for a in (q, k))
        beta = sigmoid(x @ p["b_proj.weight"].T) * (2 if o.neg_eigval else 1)
        step, rate = (projected("f", p, x) + p["dt_bias"]).reshape(shape), np.exp(p["A_log"])
        decay = np.exp(-rate * softplus(step) if o.lower_bound is None else o.lower_bound * sigmoid(rate * step))
        state, y = np.zeros((len(x), o.num_heads, o.head_dim, o.head_dim)), np.zeros_like(v)
        for t in range(x.shape[1]):
            state = state * decay[:, t, :, None, :]
            error = beta[:, t, :, None] * (v[:, t] - (state @ k[:, t, ..., None])[..., 0])
            state = state + error[..., None] * k[:, t, :, None, :]
            y[:, t] = (state @ q[:, t, ..., None])[..., 0] / np.sqrt(o.head_dim)
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + o.norm_eps) * p["o_norm.weight"]
        y = y.reshape(*x.shape[:2], -1) * sigmoid(projected("g", p, x))
        return y @ p["o_proj.weight"].T, *states, state

    return reference


@pytest.mark.parametrize("length", [1, 2, 33, 70])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_equals_the_float64_layer(options, length):
    layer, x = build(options), sequence(length=length)
    y, cache = layer(x)
    assert isinstance(cache, list)
    for found, expected in zip((y, *cache), reference_of(options)(layer, x), strict=True):
        close(found, expected)


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 4)


@pytest.mark.parametrize("options", VARIANTS[:2], ids=str)
def test_it_is_the_layer_of_mlx_lm(options):
    layer = build(options)
    o = KimiDeltaAttentionOptions.model_validate(options)
    arguments = dict.fromkeys(kimi_linear.ModelArgs.__dataclass_fields__) | {
        "hidden_size": HIDDEN,
        "rms_norm_eps": o.norm_eps,
        "linear_attn_config": {"num_heads": o.num_heads, "head_dim": o.head_dim, "short_conv_kernel_size": o.d_conv},
    }
    theirs = kimi_linear.KimiDeltaAttention(kimi_linear.ModelArgs(**arguments), 0)
    theirs.load_weights(tree_flatten(layer.parameters()))
    mine, other = ArraysCache(4), ArraysCache(4)
    for part in mx.split(sequence(length=60), [40, 41, 50], axis=1):
        close(layer(part, None, mine)[0], theirs(part, None, other), 1e-5)
    for number in range(4):
        close(mine[number], other[number], 1e-5)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_decays_beyond_any_exponential_stay_exact(shift):
    """Every other channel forgets nothing or everything."""
    layer, x = build(BASE), sequence(length=100)
    layer.dt_bias = layer.dt_bias + mx.where(mx.arange(12) % 2 == 0, shift, 0.0)
    y, cache = layer(x)
    for found, expected in zip((y, *cache), reference_of(BASE)(layer, x), strict=True):
        close(found, expected, 1e-5)
    gradients = nn.value_and_grad(layer, lambda x: layer(x)[0].sum())(x)[1]
    for name, gradient in tree_flatten(gradients):
        assert mx.isfinite(gradient).all(), name


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(BASE), reference_of(BASE))


def test_low_precision_keeps_its_type_and_a_float32_state():
    check_low_precision(build(BASE), reference_of(BASE), SPEC, [mx.bfloat16] * 3 + [mx.float32], 0.04)


def test_the_layer_starts_with_a_memory_of_many_tokens():
    mx.random.seed(0)
    layer = KimiDeltaAttention(KimiDeltaAttentionOptions(num_heads=400, head_dim=1), 8)
    rates, steps = np.exp(np.array(layer.A_log)), softplus(np.array(layer.dt_bias, np.float64))
    assert 1 <= rates.min() < 1.5
    assert 15.5 < rates.max() <= 16.01
    assert 0.9e-3 <= steps.min() < steps.max() <= 0.101
    assert 0.45 < np.abs(np.array(layer.q_conv.conv.weight)).max() <= 0.5


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = KimiDeltaAttentionOptions.model_validate(example)
    check_declared(SPEC, KimiDeltaAttention.from_options(options, dims), options, dims)
    KimiDeltaAttentionOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.usefixtures("pure")
@pytest.mark.parametrize(("heads", "width", "tokens"), [(4, 64, 256), (2, 128, 256), (16, 128, 256)])
def test_what_the_backward_pass_computes_again_is_declared(heads, width, tokens):
    rng = np.random.default_rng(0)
    q, k, v, log_g = (mx.array(rng.normal(size=(1, tokens, heads, width)).astype(np.float32)) for _ in range(4))
    inputs = (q, k / 10, v, -mx.exp(log_g), mx.full((1, tokens, heads), 0.5))
    gradient = mx.grad(lambda *a: gated_delta_rule(*a)[0].sum(), argnums=tuple(range(5)))
    mx.eval(inputs)
    before, limit = mx.get_active_memory(), mx.set_cache_limit(0)
    peaks = []
    for _ in range(5):
        mx.reset_peak_memory()
        mx.eval(gradient(*inputs))
        peaks.append(mx.get_peak_memory())
    mx.set_cache_limit(limit)
    # How far MLX runs ahead of what it frees depends on what else the machine does, so the middle one counts. Beside
    # what is computed again are the inputs in the order of heads, their gradients, and the output and its own.
    found = sorted(peaks)[2] - before - 10 * 4 * v.size
    options = KimiDeltaAttentionOptions(num_heads=heads, head_dim=width)
    assert SPEC.recomputed(options, DIMS, 1, tokens) == pytest.approx(found, rel=0.25)


def test_sizes_of_a_published_model_are_those_of_its_checkpoint():
    """Kimi-Linear-48B-A3B: hidden size 2304 and 32 heads of 128."""
    shapes = SPEC.params(KimiDeltaAttentionOptions(num_heads=32), Dims({"hidden_size": 2304, "vocab_size": 8}))
    assert shapes["q_proj.weight"] == (4096, 2304)
    assert shapes["f_a_proj.weight"] == (128, 2304)
    assert shapes["A_log"] == (1, 1, 32, 1)
    assert shapes["dt_bias"] == (4096,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Field required"),
        ({"num_heads": 2, "d_conv": 0}, "greater than 0"),
        ({"num_k_heads": 2}, "Extra inputs"),
        ({"num_heads": 2, "lower_bound": 1.0}, "less than 0"),
        ({"num_heads": 2, "low_rank_dim": 4, "full_rank": True}, "does without"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        KimiDeltaAttentionOptions.model_validate(options)
