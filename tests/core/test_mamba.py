"""Mamba's mixer against a float64 forward pass, and against mlx-lm's two forms of it."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import jamba, mamba
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_low_precision,
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
from axon_core.mamba import Mamba
from axon_core.specs.mamba import SPECS, MambaOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
SPEC = next(spec for spec in SPECS if spec.name == "mamba")
BASE = {"intermediate_size": 20, "d_state": 3, "dt_rank": 2}
VARIANTS = [
    BASE,
    BASE | {"d_conv": 2, "conv_bias": False, "norm": "weightless", "norm_eps": 1e-2},
    BASE | {"d_conv": 1, "bias": True, "dt_rank": "auto", "norm": "learned", "norm_eps": 1e-2},
]
NORMS = ("dt_layernorm", "b_layernorm", "c_layernorm")


def build(options):
    mx.random.seed(0)
    return stirred(Mamba.from_options(MambaOptions.model_validate(options), DIMS))


def reference_of(options):
    """The layer of these options in float64, token by token."""
    norm, eps = options.get("norm", "none"), options.get("norm_eps", 1e-6)

    def normalise(v, weight):
        return v if norm == "none" else v / np.sqrt((v**2).mean(-1, keepdims=True) + eps) * weight

    def reference(layer, x):
        p = parameters(layer)
        states, rank = p["A_log"].shape[1], p["dt_proj.weight"].shape[1]
        inner, z = np.split(np.array(x, np.float64) @ p["in_proj.weight"].T + p.get("in_proj.bias", 0), 2, axis=-1)
        u, conv = convolved(p, inner)
        parts = np.split(u @ p["x_proj.weight"].T, [rank, rank + states], axis=-1)
        r, B, C = (normalise(v, p.get(f"{name}.weight", 1)) for name, v in zip(NORMS, parts, strict=True))
        dt = softplus(r @ p["dt_proj.weight"].T + p["dt_proj.bias"])
        A = -np.exp(p["A_log"])
        h, y = np.zeros((len(u), states, A.shape[0])), np.zeros_like(u)
        for t in range(u.shape[1]):
            h = np.exp(dt[:, t, None] * A.T) * h + B[:, t, :, None] * (dt[:, t] * u[:, t])[:, None]
            y[:, t] = (C[:, t, :, None] * h).sum(1) + p["D"] * u[:, t]
        return (y * silu(z)) @ p["out_proj.weight"].T + p.get("out_proj.bias", 0), conv, h

    return reference


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_equals_the_float64_layer(options):
    layer, x = build(options), sequence()
    y, cache = layer(x)
    expected, conv, state = reference_of(options)(layer, x)
    assert isinstance(cache, list)
    for found, true in [(y, expected), (cache[0], conv), (cache[1], state)]:
        close(found, true)


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 2)


@pytest.mark.parametrize("falcon", [False, True])
def test_it_is_the_block_of_mlx_lm(falcon):
    args = mamba.ModelArgs(
        model_type="falcon_mamba" if falcon else "mamba",
        vocab_size=8,
        hidden_size=HIDDEN,
        intermediate_size=20,
        state_size=3,
        num_hidden_layers=1,
        conv_kernel=4,
        use_bias=True,
        use_conv_bias=True,
        time_step_rank=2,
        mixer_rms_eps=1e-3,
    )
    theirs = mamba.MambaBlock(args)
    ours = build(BASE | {"bias": True, "norm": "weightless" if falcon else "none", "norm_eps": 1e-3})
    theirs.load_weights(tree_flatten(ours.parameters()))
    same_outputs(ours, theirs)


def test_it_is_the_mixer_of_jamba():
    args = SimpleNamespace(
        hidden_size=HIDDEN,
        mamba_d_state=3,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_dt_rank=2,
        mamba_conv_bias=True,
        mamba_proj_bias=False,
        rms_norm_eps=1e-3,
    )
    theirs = jamba.JambaMambaMixer(args)
    ours = build({"d_state": 3, "dt_rank": 2, "norm": "learned", "norm_eps": 1e-3})
    theirs.load_weights(tree_flatten(ours.parameters()))
    same_outputs(ours, theirs)


def same_outputs(ours, theirs):
    x, (mine, other) = sequence(), (ArraysCache(2), ArraysCache(2))
    for part in mx.split(x, [20, 21, 30], axis=1):
        close(ours(part, None, mine)[0], theirs(part, cache=other), 1e-5)


def test_steps_beyond_any_exponential_stay_finite():
    layer, x = build(BASE), sequence()
    layer.dt_proj.bias = mx.where(mx.arange(20) % 2 == 0, 1000.0, -1000.0)
    y, cache = layer(x)
    gradients = nn.value_and_grad(layer, lambda x: layer(x)[0].sum())(x)[1]
    for array in (y, cache[1], *(value for _, value in tree_flatten(gradients))):
        assert mx.isfinite(array).all()


@pytest.mark.parametrize("norm", ["none", "weightless", "learned"])
def test_low_precision_keeps_its_type_and_a_float32_state(norm):
    options = BASE | {"norm": norm}
    check_low_precision(build(options), reference_of(options), SPEC, [mx.bfloat16, mx.float32], 0.03)


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    options = MambaOptions.model_validate(example)
    check_declared(SPEC, Mamba.from_options(options, DIMS), options, DIMS)
    MambaOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dt_rank": 0}, "whole number above 0"),
        ({"expand": 2, "intermediate_size": 64}, "give one of them"),
        ({"norm": True}, "'none', 'weightless' or 'learned'"),
        ({"dt_min": 0.1}, "Extra inputs"),
    ],
    ids=str,
)
def test_options_that_make_no_layer_are_refused_in_plain_words(options, words):
    with pytest.raises(ValidationError, match=words) as caught:
        MambaOptions.model_validate(options)
    assert len(caught.value.errors()) == 1
