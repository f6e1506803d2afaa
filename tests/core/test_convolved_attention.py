"""Attention to convolved keys and values, against float64 NumPy and mlx-lm's module of Baichuan M1."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import flat, rotate, softmax_attention
from helpers import shrunk
from mlx_lm.models import baichuan_m1
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache
from pydantic import ValidationError
from recurrent_checks import sequence

from axon_compose.registry import Dims
from axon_core.convolved_attention import ConvolvedAttention
from axon_core.specs.convolved_attention import SPECS, ConvolvedAttentionOptions

HIDDEN = 24
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
VARIANTS = [
    {"num_heads": 3, "num_kv_heads": 1},
    {"num_heads": 4, "num_kv_heads": 2, "d_conv": 4, "head_dim": 8},
    {"num_heads": 2, "window_size": 6, "d_conv": 3, "rope": {"theta": 50.0}},
    {"num_heads": 4, "num_kv_heads": 2, "taps": "channel", "d_conv": 3, "input_scale": 0.6},
    {"num_heads": 4, "num_kv_heads": 2, "taps": "channel", "conv_residual": True, "d_conv": 4, "window_size": 6},
    {"num_heads": 3, "num_kv_heads": 1, "conv_residual": True, "d_conv": 3, "key_scale": 0.5},
]


def build(options, seed=0):
    mx.random.seed(seed)
    layer = ConvolvedAttention.from_options(ConvolvedAttentionOptions.model_validate(options), DIMS)
    mx.eval(layer.parameters())
    return layer


def reference(layer, options, x):
    """The layer on (L, D) in float64, one tap at a time."""
    o = ConvolvedAttentionOptions.model_validate(options)
    p = {name: np.array(value, np.float64) for name, value in flat(layer).items()}
    x, heads = np.array(x, np.float64) * o.input_scale, {"q": o.num_heads}

    def projected(name):
        y = (o.key_scale if name == "k" else 1) * (x @ p[f"{name}_proj.weight"].T).reshape(
            len(x), heads.get(name, o.num_kv_heads or o.num_heads), -1
        )
        return y.transpose(1, 0, 2)

    def convolved(name):
        y, taps = projected(name), p[f"{name}_conv.weight"]
        # (heads, 1, 1 or width) of each tap
        taps = taps[0, 0, :, 0, :].T[..., None] if o.taps == "head" else taps[..., 0].T.reshape(o.d_conv, len(y), -1)
        out = y.copy() if o.conv_residual else np.zeros_like(y)
        for back in range(o.d_conv):
            out[:, back:] += taps[o.d_conv - 1 - back][:, None] * y[:, : len(x) - back]
        return out

    queries, keys, values = projected("q"), convolved("k"), convolved("v")
    width = queries.shape[-1]
    periods = o.rope.theta ** (np.arange(0, width, 2) / width)
    queries, keys = (rotate(a, periods, np.arange(len(x))) for a in (queries, keys))
    y = softmax_attention(queries, keys, values, width**-0.5, o.window_size)
    return y.transpose(1, 0, 2).reshape(len(x), -1) @ p["o_proj.weight"].T


def cache_of(options):
    window = options.get("window_size")
    return CacheList(RotatingKVCache(window) if window else KVCache(), ArraysCache(2))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [2, 1, 20, 7]], ids=len)
def test_a_sequence_cut_anywhere_equals_the_float64_layer(options, sizes):
    layer, x, cache = build(options), sequence(1, 30, HIDDEN), cache_of(options)
    expected = reference(layer, options, x[0])
    parts = [layer(part, None, cache)[0] for part in mx.split(x, np.cumsum(sizes)[:-1].tolist(), axis=1)]
    for found in (mx.concatenate(parts, axis=1)[0], layer(x)[0][0]):
        assert np.abs(np.array(found) - expected).max() < 3e-6 * np.abs(expected).max()


def test_it_is_the_layer_of_mlx_lm():
    options = {"num_heads": 4, "num_kv_heads": 2, "rope": {"theta": 700.0}}
    layer = build(options)
    args = SimpleNamespace(
        sliding_window_layers=[],
        num_swa_attention_heads=None,
        num_swa_key_value_heads=None,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=HIDDEN,
        rope_theta=700.0,
        conv_window=2,
    )
    theirs = baichuan_m1.Attention(args, 0)
    theirs.W_pack.weight = mx.concatenate([layer[f"{name}_proj"].weight for name in "qkv"])
    theirs.o_proj.weight = layer.o_proj.weight
    theirs.conv_k, theirs.conv_v = (layer[f"{name}_conv"].weight for name in "kv")
    mine, other = cache_of(options), CacheList(ArraysCache(2), KVCache())
    for part in mx.split(sequence(2, 20, HIDDEN), [12, 13], axis=1):
        assert mx.abs(layer(part, None, mine)[0] - theirs(part, "causal", other)).max() < 1e-5


def test_padding_does_not_reach_the_convolutions():
    layer, x = build(VARIANTS[0]), sequence(1, 12, HIDDEN)
    dirty = mx.concatenate([mx.full((1, 3, HIDDEN), 5.0), x], axis=1)
    real = mx.arange(15)[None] >= 3
    seen = mx.tril(mx.ones((15, 15), mx.bool_))[None, None] & real[:, None, None]
    y = layer(dirty, (seen, real), offset=-3)[0][:, 3:]
    assert mx.abs(y - layer(x)[0]).max() < 1e-5


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = ConvolvedAttentionOptions.model_validate(example)
    built = ConvolvedAttention.from_options(options, dims)
    assert {name: array.shape for name, array in flat(built).items()} == SPEC.params(options, dims)
    ConvolvedAttentionOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_from": "attn"}, "`kv_from` does not go with"),
        ({"k_eq_v": True}, "`k_eq_v` does not go with"),
        ({"d_conv": 1}, "greater than 1"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        ConvolvedAttentionOptions.model_validate({"num_heads": 2} | options)
