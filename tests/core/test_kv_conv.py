"""Convolved keys and values behind a gate of queries, against a float64 forward pass and mlx-lm's module of Gear."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import gear
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_dirty_padding,
    close,
    parameters,
    recurrent_tests,
    sequence,
    stirred,
)

from axon_compose.registry import Dims
from axon_core.kv_conv import KVConv
from axon_core.specs.kv_conv import SPECS, KVConvOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
VARIANTS = [
    {"num_heads": 3, "head_dim": 4},
    {"num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "d_conv": 4, "bias": True, "qk_norm": {"eps": 0.1}},
    {"num_heads": 2, "num_kv_heads": 1, "head_dim": 4, "d_conv": 2, "qk_norm": {"offset": 1.0, "eps": 1e-4}},
]


def build(options):
    mx.random.seed(0)
    return stirred(KVConv.from_options(KVConvOptions.model_validate(options), DIMS))


def reference_of(options):
    """The layer of these options in float64, token by token."""
    o = KVConvOptions.model_validate(options)

    def reference(layer, x):
        p = parameters(layer)
        x = np.array(x, np.float64)

        def projected(name, heads):
            y = x @ p[f"{name}_proj.weight"].T + p.get(f"{name}_proj.bias", 0)
            y = y.reshape(*x.shape[:2], heads, o.head_dim)
            if f"{name}_norm.weight" in p:
                scale = p[f"{name}_norm.weight"] + o.qk_norm.offset
                y = y / np.sqrt((y**2).mean(-1, keepdims=True) + o.qk_norm.eps) * scale
            return y

        q, states, convolved = projected("q", o.num_heads), [], []
        for name, conv in (("k", "key_conv"), ("v", "value_conv")):
            inputs = projected(name, o.kv_heads).reshape(*x.shape[:2], -1)
            taps, y = p[f"{conv}.weight"][..., 0], np.zeros_like(inputs)
            for t in range(x.shape[1]):
                for back in range(min(o.d_conv, t + 1)):
                    y[:, t] += taps[:, o.d_conv - 1 - back] * inputs[:, t - back]
            convolved.append((y + p.get(f"{conv}.bias", 0)).reshape(*x.shape[:2], o.kv_heads, -1))
            states.append(np.pad(inputs, [(0, 0), (o.d_conv - 1, 0), (0, 0)])[:, x.shape[1] :])
        k, v = (np.repeat(a, o.num_heads // o.kv_heads, axis=2) for a in convolved)
        y = (v / (1 + np.exp(-q * k))).reshape(*x.shape[:2], -1)
        return y @ p["o_proj.weight"].T + p.get("o_proj.bias", 0), *states

    return reference


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 2)


def test_it_is_the_layer_of_mlx_lm():
    options = VARIANTS[2]
    layer = build(options)
    arguments = SimpleNamespace(
        hidden_size=HIDDEN,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        conv_L_cache=2,
        attention_bias=False,
        rms_norm_eps=1e-4,
    )
    theirs = gear.ConvKVGatedMixer(arguments)
    theirs.load_weights(tree_flatten(layer.parameters()))
    mine, other = ArraysCache(2), ArraysCache(2)
    for part in mx.split(sequence(length=60), [40, 41, 50], axis=1):
        close(layer(part, None, mine)[0], theirs(part, None, other), 1e-5)


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(VARIANTS[1]), reference_of(VARIANTS[1]))


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = KVConvOptions.model_validate(example)
    check_declared(SPEC, KVConv.from_options(options, dims), options, dims)
    KVConvOptions.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 3, "num_kv_heads": 2, "head_dim": 4}, "not a multiple"),
        ({"num_heads": 3, "head_dim": 4, "d_conv": 1}, "greater than 1"),
        ({"num_heads": 3, "head_dim": 4, "qk_norm": {"when": "after_rope"}}, "nothing is rotated"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        KVConvOptions.model_validate(options)
