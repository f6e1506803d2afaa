"""Lightning attention against a float64 forward pass and mlx-lm's layer, cut, padded and continued."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import bailing_moe_linear
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
    silu,
    stirred,
)

from axon_compose import load
from axon_compose.proof.check import check
from axon_compose.registry import Dims
from axon_core.lightning_attention import LightningAttention
from axon_core.slopes import slopes
from axon_core.specs.lightning_attention import SPECS, LightningAttentionOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
VARIANTS = [
    {"num_heads": 3},
    {"num_heads": 2, "head_dim": 4, "qk_norm": {"eps": 1e-3}, "norm_groups": 4, "slope_scale": 0.3, "norm_eps": 1e-2},
    {"num_heads": 2, "activation": "silu", "scale": 1.0, "bias": True, "out_bias": True, "slope_scale": 0.0},
]
ROTATED = {"num_heads": 3, "rope": {"fraction": 0.5}, "qk_norm": True, "slope_scale": 0.5}
LAST = {"num_heads": 2, "rope": {"traditional": True}, "qk_norm": {"when": "after_rope", "over": "all"}}


def build(options, hidden=HIDDEN):
    mx.random.seed(0)
    layer = LightningAttention(LightningAttentionOptions.model_validate(options), hidden)
    return stirred(layer)


def rotated(x, rope):
    """Rotation of (B, L, H, W) from position 0."""
    dims = rope.rotated(x.shape[-1])
    angles = np.arange(x.shape[1])[:, None, None] * rope.theta ** (-np.arange(0, dims, 2) / dims)
    turned, rest = x[..., :dims], x[..., dims:]
    pair = (..., slice(0, None, 2)), (..., slice(1, None, 2))
    if not rope.traditional:
        pair = (..., slice(0, dims // 2)), (..., slice(dims // 2, None))
    found, (a, b) = np.zeros_like(turned), (turned[p] for p in pair)
    found[pair[0]], found[pair[1]] = (a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles))
    return np.concatenate([found, rest], axis=-1)


def reference_of(options):
    """The layer of these options in float64, token by token, from position 0."""
    o = LightningAttentionOptions.model_validate(options)

    def normed(x, weight, eps, groups):
        parts = x.reshape(*x.shape[:2], groups, -1)
        return (parts / np.sqrt((parts**2).mean(-1, keepdims=True) + eps)).reshape(x.shape) * weight

    def heads(x, weight):
        def norm(x):
            if o.qk_norm is None:
                return x
            every = o.qk_norm.over == "all"
            scale = weight if every else np.tile(weight, o.num_heads)
            return normed(x.reshape(*x.shape[:2], -1), scale, o.qk_norm.eps, 1 if every else o.num_heads).reshape(
                x.shape
            )

        first = o.qk_norm is not None and o.qk_norm.when == "before_rope"
        x = norm(x) if first else x
        x = x if o.rope is None else rotated(x, o.rope)
        return x if first else norm(x)

    def reference(layer, x):
        p = parameters(layer)
        x = np.array(x, np.float64)
        qkv = x @ p["query_key_value.weight"].T + p.get("query_key_value.bias", 0)
        qkv = silu(qkv) if o.activation == "silu" else qkv
        q, k, v = (a.reshape(*x.shape[:2], o.num_heads, -1) for a in np.split(qkv, 3, axis=-1))
        q, k = heads(q, p.get("query_layernorm.weight")), heads(k, p.get("key_layernorm.weight"))
        width = q.shape[-1]
        decay = np.exp(-o.slope_scale * np.array(slopes(o.num_heads)))[:, None, None]
        state, y = np.zeros((len(x), o.num_heads, width, width)), np.zeros_like(v)
        for t in range(x.shape[1]):
            state = decay * state + v[:, t, ..., None] * k[:, t, :, None, :]
            y[:, t] = (state @ q[:, t, ..., None])[..., 0] * (o.scale or width**-0.5)
        y = normed(y.reshape(*x.shape[:2], -1), p["g_norm.weight"], o.norm_eps, o.norm_groups)
        y = y / (1 + np.exp(-(x @ p["g_proj.weight"].T)))
        return y @ p["dense.weight"].T + p.get("dense.bias", 0), state

    return reference


@pytest.mark.parametrize("length", [1, 2, 33, 70])
@pytest.mark.parametrize("options", [*VARIANTS, ROTATED, LAST], ids=str)
def test_forward_equals_the_float64_layer(options, length):
    layer, x = build(options), sequence(length=length)
    y, cache = layer(x)
    assert isinstance(cache, list)
    for found, expected in zip((y, *cache), reference_of(options)(layer, x), strict=True):
        close(found, expected, 5e-6)


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 1, [ROTATED])


@pytest.mark.parametrize("options", [ROTATED, LAST], ids=str)
def test_positions_go_on_where_the_caller_says(options):
    layer, x = build(options), sequence(length=40)
    expected, state = reference_of(options)(layer, x)
    cache, parts = ArraysCache(1), []
    for start, stop in [(0, 1), (1, 2), (2, 30), (30, 40)]:
        y, cache = layer(x[:, start:stop], None, cache, offset=mx.array([start, start]))
        parts.append(y)
    close(mx.concatenate(parts, axis=1), expected, 5e-6)
    close(cache[0], state, 5e-6)


@pytest.mark.parametrize(("heads", "index"), [(4, 0), (4, 1), (3, 2), (6, 3)])
def test_it_is_the_layer_of_mlx_lm(heads, index):
    """But for layer 0, whose slopes the published code makes steeper than mlx-lm's."""
    hidden, layers = 8 * heads, 4
    args = SimpleNamespace(
        use_qk_norm=True,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_size=hidden,
        use_qkv_bias=True,
        use_bias=False,
        group_norm_size=2,
        rms_norm_eps=1e-4,
        partial_rotary_factor=0.5,
        rope_theta=10000.0,
        rope_traditional=False,
        rope_scaling=None,
        max_position_embeddings=512,
    )
    options = {
        "num_heads": heads,
        "slope_scale": 1 - max(0, index - 1) / (layers - 1) + 1e-5,
        "rope": {"fraction": 0.5},
        "qk_norm": {"eps": 1e-4},
        "bias": True,
        "norm_groups": 2,
        "norm_eps": 1e-4,
    }
    layer, theirs = build(options, hidden), bailing_moe_linear.LinearAttention(args, index)
    theirs.load_weights(tree_flatten(layer.parameters()))
    mine, other, start = ArraysCache(1), ArraysCache(1), 0
    for part in mx.split(sequence(length=60, hidden=hidden), [40, 41, 50], axis=1):
        close(layer(part, None, mine, offset=start)[0], theirs(part, None, other, offset=start), 1e-5)
        start += part.shape[1]
    close(mine[0], other[0].swapaxes(-1, -2), 1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-7, 30.0, 1e6])
def test_decays_from_none_to_all(scale):
    options = VARIANTS[0] | {"slope_scale": scale}
    layer, x = build(options), sequence(length=600)
    y, cache = layer(x)
    expected, state = reference_of(options)(layer, x)
    close(y, expected, 1e-5)
    close(cache[0], state, 1e-5)


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(VARIANTS[0]), reference_of(VARIANTS[0]))


def test_low_precision_keeps_its_type_and_a_float32_state():
    check_low_precision(build(VARIANTS[0]), reference_of(VARIANTS[0]), SPEC, [mx.float32], 0.04)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (8, [2**-k for k in range(1, 9)]),
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
    ],
)
def test_slopes_are_those_of_alibi(heads, expected):
    assert slopes(heads) == expected


ROTATING = {
    "version": 1,
    "name": "rotating",
    "dims": {"hidden_size": 32, "vocab_size": 67, "num_layers": 3},
    "components": {
        "linear": {
            "type": "lightning_attention",
            "num_heads": 4,
            "rope": {"fraction": 0.5},
            "qk_norm": True,
            "slope_scale": "=1 - (i - 1) / (num_layers - 1) + 1e-5",
        },
        "full": {"type": "attention", "num_heads": 4},
    },
    "blocks": {"linear": ["linear"], "full": ["full"]},
    "stack": "linear*2 full",
}


def test_a_model_that_rotates_keeps_every_truth():
    report = check(load(ROTATING))
    assert report.passed, report


def test_slopes_follow_the_depth():
    plan = load(ROTATING).plan()
    scales = [use.options.slope_scale for use in plan.uses() if use.type.endswith("lightning_attention")]
    assert scales == pytest.approx([1.5 + 1e-5, 1 + 1e-5])


@pytest.mark.parametrize("rope", [False, None])
def test_without_a_rotation_nobody_has_to_count_tokens(rope):
    linear = {"type": "lightning_attention", "num_heads": 4, "rope": rope}
    load(ROTATING | {"components": {"linear": linear}, "blocks": {"linear": ["linear"]}, "stack": "linear"})


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = LightningAttentionOptions.model_validate(example)
    check_declared(SPEC, LightningAttention.from_options(options, dims), options, dims)
    LightningAttentionOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 5}, r"`hidden_size` \(12\) is not a multiple of `num_heads` \(5\)"),
        ({"num_heads": 3, "norm_groups": 5}, r"`norm_groups` \(5\) does not divide the width of the heads \(12\)"),
        ({"num_heads": 4, "rope": True}, "even number of dimensions"),
    ],
    ids=str,
)
def test_widths_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SPEC.params(LightningAttentionOptions.model_validate(options), DIMS)


def test_wrong_options_are_refused():
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        LightningAttentionOptions(num_heads=2, slope_scale=-1.0)
