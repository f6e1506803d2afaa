"""Mamba-2's mixer against a float64 forward pass, and against mlx-lm's three forms of it."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import falcon_h1, mamba2, nemotron_h
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_dirty_padding,
    check_low_precision,
    check_pieces,
    close,
    convolved,
    parameters,
    recurrent_tests,
    sequence,
    silu,
    softplus,
    stirred,
)

from axon_compose.registry import Dims
from axon_core.mamba2 import Mamba2
from axon_core.specs.mamba import SPECS, Mamba2Options

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
SPEC = next(spec for spec in SPECS if spec.name == "mamba2")
BASE = {"num_heads": 4, "head_dim": 3, "d_state": 5}
VARIANTS = [
    BASE,
    BASE | {"n_groups": 2, "norm_groups": 3, "norm_eps": 1e-2, "d_conv": 2, "conv_bias": False},
    BASE | {"n_groups": 4, "norm_before_gate": True, "norm_groups": 2, "bias": True, "d_conv": 1},
    BASE
    | {
        "n_groups": 2,
        "bias": True,
        "out_bias": False,
        "input_scale": 0.7,
        "section_scales": {"z": 0.5, "x": 1.5, "B": 0.8, "C": 0.3, "dt": 2.0},
    },
]
#: Its steps are all at a limit, so that nothing has a gradient through them.
LIMITED = BASE | {"norm": False, "dt_min": 0.3, "dt_max": 0.9}


def build(options):
    mx.random.seed(0)
    return stirred(Mamba2.from_options(Mamba2Options.model_validate(options), DIMS))


def reference_of(options):
    """The layer of these options in float64, token by token."""
    o = Mamba2Options.model_validate(options)

    def gated(y, z, weight):
        if not o.norm:
            return y * silu(z)
        y = y if o.norm_before_gate else y * silu(z)
        parts = y.reshape(*y.shape[:-1], o.norm_groups, -1)
        y = (parts / np.sqrt((parts**2).mean(-1, keepdims=True) + o.norm_eps)).reshape(y.shape) * weight
        return y * silu(z) if o.norm_before_gate else y

    def reference(layer, x):
        p = parameters(layer)
        heads, shape = len(p["D"]), (*x.shape[:2], -1)
        inner, states = heads * o.head_dim, o.n_groups * o.d_state
        projected = o.input_scale * np.array(x, np.float64) @ p["in_proj.weight"].T + p.get("in_proj.bias", 0)
        sections = np.split(projected, [inner, 2 * inner, 2 * inner + states, 2 * inner + 2 * states], axis=-1)
        factors = dict(o.section_scales)
        z, u, B, C, dt = (factors[name] * part for name, part in zip(["z", "x", "B", "C", "dt"], sections, strict=True))
        u = np.concatenate([u, B, C], axis=-1)
        u, conv = convolved(p, u)
        u, B, C = np.split(u, [inner, inner + states], axis=-1)
        u = u.reshape(*shape, o.head_dim)
        B, C = (np.repeat(a.reshape(*shape, o.d_state), heads // o.n_groups, axis=2) for a in (B, C))
        dt = np.clip(softplus(dt + p["dt_bias"]), o.dt_min, o.dt_max)
        decay = np.exp(-np.exp(p["A_log"]) * dt)
        h, y = np.zeros((len(u), heads, o.head_dim, o.d_state)), np.zeros_like(u)
        for t in range(u.shape[1]):
            h = decay[:, t, :, None, None] * h + (dt[:, t, :, None] * u[:, t])[..., None] * B[:, t, :, None]
            y[:, t] = (h * C[:, t, :, None]).sum(-1) + p["D"][:, None] * u[:, t]
        y = gated(y.reshape(shape), z, p.get("norm.weight"))
        return y @ p["out_proj.weight"].T + p.get("out_proj.bias", 0), conv, h

    return reference


@pytest.mark.parametrize("options", [*VARIANTS, LIMITED], ids=str)
def test_forward_equals_the_float64_layer(options):
    layer, x = build(options), sequence(length=70)
    y, cache = layer(x)
    assert isinstance(cache, list)
    for found, expected in zip((y, *cache), reference_of(options)(layer, x), strict=True):
        close(found, expected)


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 2)


@pytest.mark.parametrize("sizes", [[1] * 40, [2, 1, 30, 7]], ids=len)
def test_limited_steps_are_the_same_in_a_sequence_cut_anywhere(sizes):
    check_pieces(build(LIMITED), reference_of(LIMITED), sizes, ArraysCache(2))


def same_outputs(ours, theirs):
    """With the same weights, over several calls."""
    theirs.load_weights(tree_flatten(ours.parameters()))
    x, (mine, other) = sequence(), (ArraysCache(2), ArraysCache(2))
    for part in mx.split(x, [20, 21, 30], axis=1):
        close(ours(part, None, mine)[0], theirs(part, mask=None, cache=other), 1e-5)
    close(mine[1], other[1], 1e-5)


@pytest.mark.parametrize("limit", [(0.0, inf), (0.4, 0.8)])
def test_it_is_the_block_of_mlx_lm(limit):
    args = SimpleNamespace(
        num_heads=4,
        hidden_size=HIDDEN,
        ssm_state_size=5,
        conv_kernel=4,
        head_dim=3,
        use_conv_bias=True,
        n_groups=2,
        time_step_limit=limit,
        use_bias=True,
        layer_norm_epsilon=1e-3,
    )
    options = BASE | {"n_groups": 2, "bias": True, "norm_eps": 1e-3, "dt_min": limit[0], "dt_max": limit[1]}
    same_outputs(build(options), mamba2.Mamba2Block(args, 0))


def test_it_is_the_mixer_of_nemotron_h():
    args = SimpleNamespace(
        mamba_num_heads=4,
        hidden_size=HIDDEN,
        ssm_state_size=5,
        conv_kernel=4,
        mamba_head_dim=3,
        use_conv_bias=True,
        n_groups=2,
        time_step_limit=(0.0, inf),
        mamba_proj_bias=False,
        layer_norm_epsilon=1e-3,
    )
    options = BASE | {"n_groups": 2, "norm_groups": 2, "norm_eps": 1e-3}
    same_outputs(build(options), nemotron_h.NemotronHMamba2Mixer(args))


@pytest.mark.parametrize(("norm", "before"), [(False, False), (True, False), (True, True)])
def test_it_is_the_mixer_of_falcon_h1(norm, before):
    args = SimpleNamespace(
        mamba_n_heads=4,
        hidden_size=HIDDEN,
        mamba_d_state=5,
        mamba_d_conv=4,
        mamba_d_ssm=12,
        mamba_conv_bias=True,
        rms_norm_eps=1e-3,
        mamba_n_groups=2,
        mamba_d_head=3,
        mamba_chunk_size=8,
        mamba_proj_bias=False,
        projectors_bias=False,
        mamba_rms_norm=norm,
        mamba_norm_before_gate=before,
    )
    options = BASE | {"n_groups": 2, "norm": norm, "norm_before_gate": before, "norm_eps": 1e-3}
    same_outputs(build(options), falcon_h1.FalconH1Mixer(args))


def test_steps_beyond_any_exponential_stay_finite():
    layer, x = build(BASE), sequence(length=100)
    layer.dt_bias = mx.array([1e4, -1e4, 1e6, 3e2])
    y, cache = layer(x)
    gradients = nn.value_and_grad(layer, lambda x: layer(x)[0].sum())(x)[1]
    for array in (y, cache[1], *(value for _, value in tree_flatten(gradients))):
        assert mx.isfinite(array).all()


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(BASE), reference_of(BASE))


def test_low_precision_keeps_its_type_and_a_float32_state():
    check_low_precision(build(BASE), reference_of(BASE), SPEC, [mx.bfloat16, mx.float32], 0.03)


def test_the_state_space_starts_as_in_the_paper():
    mx.random.seed(0)
    layer = Mamba2(Mamba2Options(num_heads=400, head_dim=1, d_state=2), 8)
    decays = np.exp(np.array(layer.A_log, np.float64))
    steps = softplus(np.array(layer.dt_bias, np.float64))
    assert 1 <= decays.min() < 1.5
    assert 15.5 < decays.max() <= 16.01
    assert steps.min() >= 0.9e-3
    assert steps.max() <= 0.101
    assert np.median(steps) == pytest.approx(1e-2, rel=0.3)


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = Mamba2Options.model_validate(example)
    check_declared(SPEC, Mamba2.from_options(options, dims), options, dims)
    Mamba2Options.model_validate(shrunk(SPEC, example))


def test_sizes_of_a_published_model_are_those_of_its_checkpoint():
    """mamba2-130m: hidden size 768 and else the defaults; its in_proj has 3352 rows, its convolution 1792 channels."""
    shapes = SPEC.params(Mamba2Options(), Dims({"hidden_size": 768, "vocab_size": 8}))
    assert shapes["in_proj.weight"] == (3352, 768)
    assert shapes["conv1d.weight"] == (1792, 4, 1)
    assert shapes["A_log"] == (24,)
    assert shapes["norm.weight"] == (1536,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expand": 2, "num_heads": 64}, "give one of them"),
        ({"num_heads": 6, "n_groups": 4}, r"`n_groups` \(4\) does not divide the number of heads \(6\)"),
        ({"num_heads": 2, "head_dim": 3, "norm_groups": 4}, r"`norm_groups` \(4\) does not divide .* channels \(6\)"),
        ({"dt_min": 1.0, "dt_max": 0.5}, "larger than `dt_max`"),
        ({"dt_rank": 1}, "Extra inputs"),
    ],
    ids=str,
)
def test_options_that_make_no_layer_are_refused_in_plain_words(options, words):
    with pytest.raises(ValidationError, match=words) as caught:
        Mamba2Options.model_validate(options)
    assert len(caught.value.errors()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head_dim": 64}, "is 24, not a multiple of `head_dim`"),
        ({"head_dim": 24, "n_groups": 2}, "does not divide the number of heads"),
        ({"head_dim": 12, "norm_groups": 5}, "does not divide the number of channels"),
    ],
    ids=str,
)
def test_widths_that_do_not_fit_the_hidden_size_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SPEC.params(Mamba2Options.model_validate(options), DIMS)
