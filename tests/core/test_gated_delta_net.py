"""GatedDeltaNet against a float64 forward pass and mlx-lm's layer, however a sequence is cut, padded and continued."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3_5, qwen3_next
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import pieces

from axon_compose.registry import Dims
from axon_core.gated_delta_net import GatedDeltaNet
from axon_core.specs.gated_delta_net import SPECS, GatedDeltaNetOptions

HIDDEN = 12
(SPEC,) = SPECS
SIZES = {"num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 8, "head_v_dim": 6, "norm_eps": 1e-5}


def build(seed=0, **options):
    mx.random.seed(seed)
    layer = GatedDeltaNet(HIDDEN, **(SIZES | options))
    # Away from the start of training, so that every part of the layer matters.
    layer.norm.weight = 1 + 0.3 * mx.random.normal(layer.norm.weight.shape)
    layer.in_proj_b.weight, layer.in_proj_a.weight = 3 * layer.in_proj_b.weight, 3 * layer.in_proj_a.weight
    layer.conv1d.weight = 2 * layer.conv1d.weight
    layer.A_log = layer.A_log - 1
    return layer


def sequence(batch=2, length=80, seed=1):
    return mx.array(np.random.default_rng(seed).normal(size=(batch, length, HIDDEN)).astype(np.float32))


def reference(layer, x, parameters=None):
    """The whole layer in float64, token by token; also the convolution's last inputs and the last state."""
    p = parameters or {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    x = np.array(x, np.float64)
    batch, length, _ = x.shape
    key_heads, heads, key_dim, value_dim = layer.num_k_heads, layer.num_v_heads, layer.head_k_dim, layer.head_v_dim

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    taps = p["conv1d.weight"][..., 0]
    width = taps.shape[1]
    padded = np.pad(x @ p["in_proj_qkv.weight"].T, [(0, 0), (width - 1, 0), (0, 0)])
    u = sum(padded[:, k : k + length] * taps[:, k] for k in range(width))
    keys = key_heads * key_dim
    q, k, v = np.split(u * sigmoid(u), [keys, 2 * keys], axis=-1)
    q, k = (a.reshape(batch, length, key_heads, key_dim) for a in (q, k))
    q, k = (a / np.sqrt((a**2).sum(-1, keepdims=True) + 1e-6) for a in (q, k))
    q, k = (np.repeat(a, heads // key_heads, axis=2) for a in (q / np.sqrt(key_dim), k))
    v = v.reshape(batch, length, heads, value_dim)
    beta = sigmoid(x @ p["in_proj_b.weight"].T) * (2 if layer.neg_eigval else 1)
    decay = np.exp(-np.exp(p["A_log"]) * np.logaddexp(0, x @ p["in_proj_a.weight"].T + p["dt_bias"]))

    state, o = np.zeros((batch, heads, value_dim, key_dim)), np.zeros_like(v)
    for t in range(length):
        state = decay[:, t, :, None, None] * state
        error = beta[:, t, :, None] * (v[:, t] - np.einsum("bhvk,bhk->bhv", state, k[:, t]))
        state = state + error[..., None] * k[:, t, :, None, :]
        o[:, t] = np.einsum("bhvk,bhk->bhv", state, q[:, t])
    z = (x @ p["in_proj_z.weight"].T).reshape(o.shape)
    gate = sigmoid(z) if layer.norm.activation == "sigmoid" else z * sigmoid(z)
    o = o / np.sqrt((o**2).mean(-1, keepdims=True) + layer.norm.eps) * p["norm.weight"] * gate
    return o.reshape(batch, length, -1) @ p["out_proj.weight"].T, padded[:, length:], state


def close(found, expected, limit=2e-6):
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


VARIANTS = [
    {},
    {"d_conv": 1, "num_v_heads": None},
    {"d_conv": 2, "num_k_heads": 1, "head_v_dim": None},
    {"neg_eigval": True},
    {"gate_activation": "sigmoid"},
]


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 65, 150])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_equals_the_float64_layer(options, length):
    layer, x = build(**options), sequence(length=length)
    expected, conv, state = reference(layer, x)
    y, cache = layer(x)
    close(y, expected)
    assert isinstance(cache, list)
    assert cache[0].shape == conv.shape
    if conv.size:
        close(cache[0], conv)
    close(cache[1], state)


def mlx_lm_arguments(layer):
    return {
        "hidden_size": HIDDEN,
        "linear_num_value_heads": layer.num_v_heads,
        "linear_num_key_heads": layer.num_k_heads,
        "linear_key_head_dim": layer.head_k_dim,
        "linear_value_head_dim": layer.head_v_dim,
        "linear_conv_kernel_dim": layer.conv1d.weight.shape[1],
        "rms_norm_eps": layer.norm.eps,
    }


@pytest.mark.parametrize("options", [VARIANTS[0], VARIANTS[2]], ids=str)
def test_equals_mlx_lm_with_the_same_weights(options):
    layer, x = build(**options), sequence()
    theirs = qwen3_5.GatedDeltaNet(qwen3_5.TextModelArgs(model_type="qwen3_5", **mlx_lm_arguments(layer)))
    theirs.update(layer.parameters())
    cache, their_cache = ArraysCache(2), ArraysCache(2)
    for part in mx.split(x, [50, 51], axis=1):
        y, _ = layer(part, None, cache)
        close(y, theirs(part, None, their_cache), 1e-5)
    close(cache[1], their_cache[1], 1e-5)


def test_equals_the_fused_layer_of_qwen3_next_after_a_change_of_layout():
    layer, x = build(), sequence()
    arguments = dict.fromkeys(qwen3_next.ModelArgs.__dataclass_fields__) | mlx_lm_arguments(layer)
    theirs = qwen3_next.Qwen3NextGatedDeltaNet(qwen3_next.ModelArgs(**arguments | {"rope_scaling": None}))
    parameters = dict(tree_flatten(layer.parameters()))
    keys = layer.num_k_heads * layer.head_k_dim
    parts = [*mx.split(parameters.pop("in_proj_qkv.weight"), [keys, 2 * keys]), parameters.pop("in_proj_z.weight")]
    fused = [part.reshape(layer.num_k_heads, -1, HIDDEN) for part in parts]
    parameters["in_proj_qkvz.weight"] = mx.concatenate(fused, axis=1).flatten(0, 1)
    parts = [parameters.pop("in_proj_b.weight"), parameters.pop("in_proj_a.weight")]
    fused = [part.reshape(layer.num_k_heads, -1, HIDDEN) for part in parts]
    parameters["in_proj_ba.weight"] = mx.concatenate(fused, axis=1).flatten(0, 1)
    theirs.load_weights(list(parameters.items()))
    close(layer(x)[0], theirs(x), 1e-5)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_gates_beyond_any_exponential_stay_finite(shift):
    layer, x = build(), sequence()
    layer.dt_bias = layer.dt_bias + shift
    layer.in_proj_b.weight = 1e3 * layer.in_proj_b.weight

    def loss(x):
        y, cache = layer(x)
        return (y**2).sum() + cache[1].sum()

    value, grads = nn.value_and_grad(layer, loss)(x)
    assert mx.isfinite(value)
    for name, gradient in tree_flatten(grads):
        assert mx.isfinite(gradient).all(), name


def test_it_is_causal_and_remembers():
    layer, x = build(), sequence()
    y = layer(x)[0]
    changed = layer(mx.concatenate([x[:, :40], x[:, 40:] + 1], axis=1))[0]
    np.testing.assert_array_equal(np.array(y[:, :40]), np.array(changed[:, :40]))
    early = layer(mx.concatenate([x[:, :1] + 1, x[:, 1:]], axis=1))[0]
    assert mx.abs(early[:, 40] - y[:, 40]).max() > 1e-5


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[80], [1] * 80, [2, 1, 70, 7], [79, 1]], ids=lambda s: str(len(s)))
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


LENGTHS = [11, 1, 80, 43]


def ragged():
    return [sequence(1, length, seed=10 + length) for length in LENGTHS]


def tail(length=5):
    return sequence(len(LENGTHS), length, seed=99)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[80], [1] * 80, [7, 33, 40], [12, 68]], ids=lambda s: str(len(s)))
def test_every_padded_row_equals_its_single_run_and_goes_on(options, sizes, side):
    layer, rows = build(**options), ragged()
    pads = [max(LENGTHS) - length for length in LENGTHS]
    both = [(pad, 0) if side == "left" else (0, pad) for pad in pads]
    x = mx.concatenate([mx.pad(r, [(0, 0), b, (0, 0)], constant_values=5.0) for r, b in zip(rows, both, strict=True)])
    cache = ArraysCache(2, left_padding=pads if side == "left" else None)
    if side == "right":
        cache.prepare(lengths=LENGTHS)
    y, cache = pieces(layer, x, sizes, cache)
    cache.finalize()
    after, cache = layer(tail(), None, cache)
    for i, (row, (left, _)) in enumerate(zip(rows, both, strict=True)):
        expected, conv, state = reference(layer, mx.concatenate([row, tail()[i : i + 1]], axis=1))
        close(y[i : i + 1, left : left + row.shape[1]], expected[:, : row.shape[1]])
        close(after[i : i + 1], expected[:, row.shape[1] :])
        close(cache[1][i : i + 1], state)
        if conv.size:
            close(cache[0][i : i + 1], conv)


def test_padding_that_is_not_a_number_does_not_spread():
    layer, x = build(), sequence(1, 9)
    dirty = mx.concatenate([mx.full((1, 3, HIDDEN), mx.nan), x], axis=1)
    y, cache = layer(dirty, mx.arange(12)[None] >= 3)
    close(y[:, 3:], reference(layer, x)[0])
    assert mx.isfinite(cache[1]).all()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_low_precision_keeps_its_type_and_a_float32_state(dtype):
    layer, x = build(), sequence(length=60)
    layer.set_dtype(dtype)
    layer.A_log, layer.dt_bias = layer.A_log.astype(mx.float32), layer.dt_bias.astype(mx.float32)
    x = x.astype(dtype)
    rounded = {name: np.array(v.astype(mx.float32), np.float64) for name, v in tree_flatten(layer.parameters())}
    expected, _, _ = reference(layer, x.astype(mx.float32), rounded)
    y, cache = pieces(layer, x, [37, 1, 22], ArraysCache(2))
    assert (y.dtype, cache[0].dtype, cache[1].dtype) == (dtype, dtype, mx.float32)
    # Only the projections round, to 8 (11) bits.
    close(y.astype(mx.float32), expected, 0.03 if dtype == mx.bfloat16 else 0.004)


def test_gradient_of_the_layer_agrees_with_differences_of_the_float64_layer():
    layer, x = build(), sequence(1, 40)
    weight = np.random.default_rng(5).normal(size=(1, 40, HIDDEN))
    w = mx.array(weight.astype(np.float32))
    grads = dict(tree_flatten(nn.value_and_grad(layer, lambda x: (w * layer(x)[0]).sum())(x)[1]))
    base = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    assert grads.keys() == base.keys()
    rng = np.random.default_rng(6)
    for name, gradient in grads.items():
        direction = rng.normal(size=gradient.shape)
        up, down = (
            (weight * reference(layer, x, base | {name: base[name] + step * direction})[0]).sum()
            for step in (1e-6, -1e-6)
        )
        gradient = np.array(gradient, np.float64)
        assert np.abs(gradient).max() > 0, name
        # Gradients of gates are sums over tokens, summed in float32, that cancel but for a tenth.
        limit = 1e-5 * np.abs(gradient * direction).sum()
        assert (up - down) / 2e-6 == pytest.approx((gradient * direction).sum(), abs=limit), name


def test_the_layer_starts_with_a_memory_of_many_tokens():
    mx.random.seed(0)
    layer = GatedDeltaNet(64, 400, head_k_dim=1)
    A, steps = np.exp(np.array(layer.A_log)), np.log1p(np.exp(np.array(layer.dt_bias, np.float64)))
    assert 1 <= A.min() < 1.5
    assert 15.5 < A.max() <= 16
    assert steps.min() >= 0.9e-3
    assert steps.max() <= 0.101
    assert np.median(steps) == pytest.approx(1e-2, rel=0.3)
    assert 0.45 < np.abs(np.array(layer.conv1d.weight)).max() <= 0.5


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    options, dims = GatedDeltaNetOptions.model_validate(example), Dims({"hidden_size": HIDDEN, "vocab_size": 8})
    layer = GatedDeltaNet.from_options(options, dims)
    assert {name: value.shape for name, value in tree_flatten(layer.parameters())} == SPEC.params(options, dims)
    cache = ArraysCache(len(SPEC.cache(options, dims).arrays))
    layer.set_dtype(mx.bfloat16)
    layer(sequence(2, 6).astype(mx.bfloat16), None, cache)
    spec = SPEC.cache(options, dims)
    for array, declared in zip(cache.state[0], spec.arrays, strict=True):
        assert array.shape[1:] == declared.shape
        assert array.dtype == getattr(mx, declared.dtype or "bfloat16")
    assert cache.nbytes == 2 * spec.nbytes(6)


def test_shrinking_keeps_the_structure():
    def small(**written):
        options = GatedDeltaNetOptions.model_validate(shrunk(SPEC, written))
        return options.head_shapes()

    assert small(num_k_heads=16, num_v_heads=32) == (2, 16, 4, 16)
    assert small(num_k_heads=16, head_v_dim=256, head_k_dim=96) == (2, 16, 2, 32)
    assert small(num_k_heads=1, num_v_heads=6) == (1, 16, 2, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Field required"),
        ({"num_k_heads": 3, "num_v_heads": 4}, "`num_v_heads` \\(4\\) is not a multiple of `num_k_heads` \\(3\\)"),
        ({"num_k_heads": 2, "d_conv": 0}, "greater than 0"),
        ({"num_k_heads": 2, "head_dim": 8}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        GatedDeltaNetOptions.model_validate(options)


def test_head_counts_that_do_not_fit_are_refused_in_python_too():
    with pytest.raises(ValueError, match="not a multiple"):
        GatedDeltaNet(HIDDEN, 3, 4)
