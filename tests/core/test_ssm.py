"""AxonSSM against a float64 forward pass, in every way that mlx-lm may cut, pad and continue a sequence."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import pieces

from axon_compose.registry import Dims
from axon_core.specs.ssm import SPECS, SSMOptions
from axon_core.ssm import AxonSSM, SSMConfig

HIDDEN = 12
(SPEC,) = SPECS


def build(seed=0, **options):
    mx.random.seed(seed)
    options = {"ssm_intermediate_dim": 20, "ssm_d_state": 3, "ssm_d_conv": 4} | options
    layer = AxonSSM(SSMConfig(HIDDEN, **options))
    # Larger than at the start of training, so that every part of the layer matters.
    layer.update({"A_log": layer.A_log + 0.3 * mx.random.normal(layer.A_log.shape)})
    layer.x_proj.weight = 2 * layer.x_proj.weight
    if "bias" in layer.conv1d:
        layer.conv1d.bias = 0.3 * mx.random.normal(layer.conv1d.bias.shape)
    return layer


def sequence(batch=2, length=40, seed=1):
    return mx.array(np.random.default_rng(seed).normal(size=(batch, length, HIDDEN)).astype(np.float32))


def reference(layer, x, low=1e-4, high=100.0):
    """The whole layer in float64, token by token; also the convolution's inputs and the last state."""
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    x = np.array(x, np.float64)
    states = p["A_log"].shape[1]

    def silu(v):
        return v / (1 + np.exp(-v))

    projected = x @ p["in_proj.weight"].T + p.get("in_proj.bias", 0)
    inner, z = np.split(projected, 2, axis=-1)
    taps = p["conv1d.weight"][..., 0]
    width = taps.shape[1]
    padded = np.pad(inner, [(0, 0), (width - 1, 0), (0, 0)])
    u = sum(padded[:, k : k + x.shape[1]] * taps[:, k] for k in range(width)) + p.get("conv1d.bias", 0)
    u = silu(u)
    B, C, rank = np.split(u @ p["x_proj.weight"].T, [states, 2 * states], axis=-1)
    dt = np.clip(np.log1p(np.exp(rank @ p["dt_proj.weight"].T + p["dt_proj.bias"])), low, high)
    A = -np.exp(p["A_log"])
    h, y = np.zeros((len(x), states, A.shape[0])), np.zeros_like(u)
    for t in range(x.shape[1]):
        h = np.exp(dt[:, t, None] * A.T) * h + B[:, t, :, None] * (dt[:, t] * u[:, t])[:, None]
        y[:, t] = (C[:, t, :, None] * h).sum(1) + p["D"] * u[:, t]
    y = (y * silu(z)) @ p["out_proj.weight"].T + p.get("out_proj.bias", 0)
    return y, padded[:, padded.shape[1] - width + 1 :], h


def close(found, expected, limit=2e-6):
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


VARIANTS = [
    {},
    {"ssm_d_conv": 1},
    {"ssm_d_conv": 2, "ssm_conv_bias": False},
    {"ssm_dt_rank": 3, "ssm_bias": True},
    {"ssm_dt_rank": "auto", "ssm_d_state": 1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_equals_the_float64_layer(options):
    layer, x = build(**options), sequence()
    expected, conv, state = reference(layer, x)
    y, cache = layer(x)
    close(y, expected)
    assert isinstance(cache, list)
    assert cache[0].shape == conv.shape
    if conv.size:
        close(cache[0], conv)
    close(cache[1], state)


def test_steps_are_clipped():
    layer, x = build(ssm_dt_min=0.05, ssm_dt_max=0.06), sequence()
    close(layer(x)[0], reference(layer, x, 0.05, 0.06)[0])


def test_steps_beyond_any_exponential_stay_finite():
    layer, x = build(), sequence()
    layer.dt_proj.bias = mx.where(mx.arange(20) % 2 == 0, 1000.0, -1000.0)
    y, cache = layer(x)
    assert mx.isfinite(y).all()
    assert mx.isfinite(cache[1]).all()


def test_it_is_causal_and_remembers():
    layer, x = build(), sequence()
    y = layer(x)[0]
    changed = layer(mx.concatenate([x[:, :20], x[:, 20:] + 1], axis=1))[0]
    np.testing.assert_array_equal(np.array(y[:, :20]), np.array(changed[:, :20]))
    early = layer(mx.concatenate([x[:, :1] + 1, x[:, 1:]], axis=1))[0]
    assert mx.abs(early[:, -1] - y[:, -1]).max() > 1e-5


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [2, 1, 30, 7], [39, 1]], ids=lambda s: str(len(s)))
@pytest.mark.parametrize(
    "make", [lambda: None, lambda: [None, None], lambda: ArraysCache(2)], ids=["None", "list", "mlx"]
)
def test_a_sequence_cut_anywhere_equals_the_whole(options, sizes, make):
    layer, x = build(**options), sequence()
    expected, conv, state = reference(layer, x)
    y, cache = pieces(layer, x, sizes, make())
    close(y, expected)
    close(cache[1], state)
    if conv.size:
        close(cache[0], conv)


def test_a_list_of_states_is_not_changed():
    layer, x = build(), sequence()
    _, before = layer(x)
    copies = [np.array(a) for a in before]
    layer(x, None, before)
    for array, copy in zip(before, copies, strict=True):
        np.testing.assert_array_equal(np.array(array), copy)


def test_the_cache_advances_once_per_call():
    layer = build()
    cache = ArraysCache(2, left_padding=[3, 0])
    layer(sequence(length=2), None, cache)
    assert cache.left_padding.tolist() == [1, -2]


LENGTHS = [11, 1, 40, 23]


def ragged():
    return [sequence(1, length, seed=10 + length) for length in LENGTHS]


def tail(length=5):
    return sequence(len(LENGTHS), length, seed=99)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 13, 20], [16, 16, 8]], ids=lambda s: str(len(s)))
def test_every_left_padded_row_equals_its_single_run(options, sizes):
    layer, rows = build(**options), ragged()
    pads = [max(LENGTHS) - length for length in LENGTHS]
    garbage = 5.0
    x = mx.concatenate(
        [mx.pad(r, [(0, 0), (p, 0), (0, 0)], constant_values=garbage) for r, p in zip(rows, pads, strict=True)]
    )
    y, cache = pieces(layer, x, sizes, ArraysCache(2, left_padding=pads))
    after, cache = layer(tail(), None, cache)
    for i, (row, pad) in enumerate(zip(rows, pads, strict=True)):
        expected, _, state = reference(layer, mx.concatenate([row, tail()[i : i + 1]], axis=1))
        close(y[i : i + 1, pad:], expected[:, : row.shape[1]])
        close(after[i : i + 1], expected[:, row.shape[1] :])
        close(cache[1][i : i + 1], state)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 13, 20], [16, 16, 8], [12, 28]], ids=lambda s: str(len(s)))
def test_every_right_padded_row_equals_its_single_run_and_goes_on(options, sizes):
    layer, rows = build(**options), ragged()
    pads = [max(LENGTHS) - length for length in LENGTHS]
    x = mx.concatenate(
        [mx.pad(r, [(0, 0), (0, p), (0, 0)], constant_values=5.0) for r, p in zip(rows, pads, strict=True)]
    )
    cache = ArraysCache(2)
    cache.prepare(lengths=LENGTHS)
    y, cache = pieces(layer, x, sizes, cache)
    cache.finalize()
    after, cache = layer(tail(), None, cache)
    for i, row in enumerate(rows):
        expected, _, state = reference(layer, mx.concatenate([row, tail()[i : i + 1]], axis=1))
        close(y[i : i + 1, : row.shape[1]], expected[:, : row.shape[1]])
        close(after[i : i + 1], expected[:, row.shape[1] :])
        close(cache[1][i : i + 1], state)


def test_padding_that_is_not_a_number_does_not_spread():
    layer, x = build(), sequence(1, 9)
    dirty = mx.concatenate([mx.full((1, 3, HIDDEN), mx.nan), x], axis=1)
    y, cache = layer(dirty, mx.arange(12)[None] >= 3)
    close(y[:, 3:], reference(layer, x)[0])
    assert mx.isfinite(cache[1]).all()


def test_batches_are_merged_filtered_and_taken_apart():
    layer, rows = build(), ragged()
    caches = [ArraysCache(2) for _ in rows]
    for row, cache in zip(rows, caches, strict=True):
        layer(row, None, cache)
    merged = ArraysCache.merge(caches)
    merged.filter(mx.array([2, 0]))
    y, merged = layer(tail()[:2], None, merged)
    for i, origin in enumerate([2, 0]):
        expected, _, state = reference(layer, mx.concatenate([rows[origin], tail()[i : i + 1]], axis=1))
        close(y[i : i + 1], expected[:, rows[origin].shape[1] :])
        close(merged.extract(i)[1], state)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_low_precision_keeps_its_type_and_a_float32_state(dtype):
    layer, x = build(), sequence(length=30)
    expected, *_ = reference(layer, x)
    layer.set_dtype(dtype)
    layer.A_log, layer.D = layer.A_log.astype(mx.float32), layer.D.astype(mx.float32)
    y, cache = pieces(layer, x.astype(dtype), [17, 1, 12], ArraysCache(2))
    assert (y.dtype, cache[0].dtype, cache[1].dtype) == (dtype, dtype, mx.float32)
    # Weights and activations are rounded to 8 (11) bits at four places on the way.
    close(y.astype(mx.float32), expected, 0.03 if dtype == mx.bfloat16 else 0.004)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradients_are_finite_and_reach_every_parameter(options):
    layer, x = build(**options), sequence()
    grads = nn.value_and_grad(layer, lambda x: (layer(x)[0] ** 2).sum())(x)[1]
    for name, value in tree_flatten(grads):
        assert mx.isfinite(value).all(), name
        assert mx.abs(value).max() > 0, name


def test_gradient_of_the_layer_agrees_with_differences_of_the_float64_layer():
    layer, x = build(ssm_bias=True, ssm_dt_rank=2), sequence(1, 12)
    weight = np.random.default_rng(5).normal(size=(1, 12, HIDDEN))
    w = mx.array(weight.astype(np.float32))
    grads = dict(tree_flatten(nn.value_and_grad(layer, lambda x: (w * layer(x)[0]).sum())(x)[1]))

    class Shifted:
        def __init__(self, values):
            self.parameters = lambda: values

    rng = np.random.default_rng(6)
    base = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    for name, gradient in grads.items():
        direction = rng.normal(size=gradient.shape)
        up, down = (
            (weight * reference(Shifted(base | {name: base[name] + step * direction}), x)[0]).sum()
            for step in (1e-6, -1e-6)
        )
        scale = np.abs(np.array(gradient) * direction).sum()
        assert (up - down) / 2e-6 == pytest.approx((np.array(gradient) * direction).sum(), abs=2e-6 * scale), name


def test_the_state_space_starts_as_in_the_paper():
    mx.random.seed(0)
    layer = AxonSSM(SSMConfig(64, 400, 5, 4, 4))
    np.testing.assert_allclose(np.exp(np.array(layer.A_log)), np.tile(np.arange(1.0, 6), (400, 1)), rtol=1e-6)
    steps = np.log1p(np.exp(np.array(layer.dt_proj.bias, np.float64)))
    assert steps.min() >= 0.9e-3
    assert steps.max() <= 0.101
    assert np.median(steps) == pytest.approx(1e-2, rel=0.3)
    assert 0.45 < np.abs(np.array(layer.conv1d.weight)).max() <= 0.5


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    options, dims = SSMOptions.model_validate(example), Dims({"hidden_size": HIDDEN, "vocab_size": 8})
    layer = AxonSSM.from_options(options, dims)
    assert {name: value.shape for name, value in tree_flatten(layer.parameters())} == SPEC.params(options, dims)
    cache = ArraysCache(2)
    layer.set_dtype(mx.bfloat16)
    layer(sequence(2, 6).astype(mx.bfloat16), None, cache)
    spec = SPEC.cache(options, dims)
    for array, declared in zip(cache.state[0], spec.arrays, strict=True):
        assert array.shape[1:] == declared.shape
        assert array.dtype == getattr(mx, declared.dtype or "bfloat16")
    assert cache.nbytes == 2 * spec.nbytes(6)
    SSMOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dt_rank": "full"}, "whole number above 0"),
        ({"dt_rank": 0}, "whole number above 0"),
        ({"dt_rank": True}, "whole number above 0"),
        ({"expand": 2, "intermediate_size": 64}, "give one of them"),
        ({"dt_min": 1.0, "dt_max": 0.5}, "larger than `dt_max`"),
        ({"d_stat": 4}, "Extra inputs"),
        ({"d_conv": "4"}, "valid integer"),
        ({"d_state": 0}, "greater than 0"),
    ],
    ids=str,
)
def test_options_that_make_no_layer_are_refused_in_plain_words(options, words):
    with pytest.raises(ValidationError, match=words) as caught:
        SSMOptions.model_validate(options)
    assert len(caught.value.errors()) == 1


def test_an_expansion_to_no_channel_is_refused():
    with pytest.raises(ValueError, match="leaves no channel"):
        SPEC.params(SSMOptions.model_validate({"expand": 0.01}), Dims({"hidden_size": 8}))
