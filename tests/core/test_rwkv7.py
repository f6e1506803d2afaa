"""RWKV-7's two layers, and a whole model of them, against a float64 forward pass and mlx-lm."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import rwkv7
from mlx_lm.models.cache import ArraysCache, make_prompt_cache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_gradient,
    check_pieces,
    check_ragged,
    close,
    parameters,
    sequence,
    stirred,
)

from axon_compose import ArchitectureError, load
from axon_compose.proof.check import check
from axon_compose.registry import Dims
from axon_core.rwkv7 import RWKV7ChannelMix, RWKV7TimeMix
from axon_core.specs.rwkv7 import SPECS, RWKV7ChannelMixOptions, RWKV7TimeMixOptions
from axon_core.token_shift import token_shift

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
TIME, CHANNEL = SPECS
RANKS = {"decay_low_rank_dim": 3, "a_low_rank_dim": 5, "v_low_rank_dim": 2, "gate_low_rank_dim": 6}
BASE = {"head_dim": 4, **RANKS}
VARIANTS = [BASE, BASE | {"head_dim": 6, "norm_eps": 1e-2}, BASE | {"value_from": "first"}]


class Reading:
    """A layer that reads values, as one that does not: the values are made of its input."""

    def __init__(self, layer):
        self.layer, self.parameters, self.set_dtype = layer, layer.parameters, layer.set_dtype

    def __call__(self, x, mask=None, cache=None):
        return self.layer(x, mask, cache, value=other(x))


def other(x):
    return 2 * x - 1


def time_mix(options):
    mx.random.seed(0)
    layer = stirred(RWKV7TimeMix.from_options(RWKV7TimeMixOptions.model_validate(options), DIMS))
    return Reading(layer) if options.get("value_from") else layer


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def low_rank(p, name, x, activation=lambda v: v):
    hidden = activation(x @ p[f"{name}_lora.lora.0.weight"].T)
    return hidden @ p[f"{name}_lora.lora.2.weight"].T + p.get(f"{name}_lora.lora.2.bias", 0)


def shifted(x):
    return np.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]


def time_mix_reference(options):
    """The layer of these options in float64, token by token, as section 4 of the paper writes it."""
    o = RWKV7TimeMixOptions.model_validate(options)

    def reference(layer, x):
        p, x = parameters(layer), np.array(x, np.float64)
        batch, length, _ = x.shape
        step = shifted(x) - x
        mixed = {name: x + step * p[f"x_{name}"] for name in "rwkvag"}
        r, k, v = (mixed[name] @ p[f"{name}_proj.weight"].T for name in "rkv")
        w = np.exp(-np.exp(-0.5) * sigmoid(low_rank(p, "w", mixed["w"], np.tanh)))
        a = sigmoid(low_rank(p, "a", mixed["a"]))
        if o.value_from:
            v = v + (other(x) - v) * sigmoid(low_rank(p, "v", mixed["v"]))
        gate = low_rank(p, "g", mixed["g"], sigmoid)

        shape = (batch, length, -1, o.head_dim)
        r, k, v, w, a = (value.reshape(shape) for value in (r, k, v, w, a))
        removed = k * p["k_k"]
        removed = removed / np.sqrt((removed**2).sum(-1, keepdims=True))
        k = k * (1 + (a - 1) * p["k_a"])
        state, y = np.zeros((batch, r.shape[2], o.head_dim, o.head_dim)), np.zeros_like(v)
        for t in range(length):
            d, rate = removed[:, t, ..., None], a[:, t, ..., None]
            transition = w[:, t, ..., None] * np.eye(o.head_dim) - d * (rate * d).swapaxes(-1, -2)
            state = state @ transition + v[:, t, ..., None] * k[:, t, :, None]
            y[:, t] = (state @ r[:, t, ..., None])[..., 0]
        y = y - y.mean(-1, keepdims=True)
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + o.norm_eps) * p["g_norm.weight"] + p["g_norm.bias"]
        y = y + (r * k * p["r_k"]).sum(-1, keepdims=True) * v
        return (y.reshape(x.shape) * gate) @ p["o_proj.weight"].T, x[:, -1:], state

    return reference


def channel_mix():
    mx.random.seed(0)
    return stirred(RWKV7ChannelMix(HIDDEN, 20))


def channel_mix_reference(layer, x):
    p, x = parameters(layer), np.array(x, np.float64)
    hidden = (x + (shifted(x) - x) * p["x_k"]) @ p["key.weight"].T
    return np.maximum(hidden, 0) ** 2 @ p["value.weight"].T, x[:, -1:]


CASES = [
    *(pytest.param(lambda o=o: time_mix(o), time_mix_reference(o), id=f"time{i}") for i, o in enumerate(VARIANTS)),
    pytest.param(channel_mix, channel_mix_reference, id="channel"),
]


@pytest.mark.parametrize("length", [1, 2, 33, 70])
@pytest.mark.parametrize(("build", "reference"), CASES)
def test_forward_equals_the_float64_layer(build, reference, length):
    layer, x = build(), sequence(length=length)
    y, cache = layer(x)
    assert isinstance(cache, list)
    for found, expected in zip((y, *cache), reference(layer, x), strict=True):
        close(found, expected)


@pytest.mark.parametrize(("build", "reference"), CASES)
@pytest.mark.parametrize("sizes", [[1] * 40, [2, 1, 30, 7], [39, 1]], ids=len)
@pytest.mark.parametrize("make", [lambda n: None, lambda n: [None] * n, ArraysCache], ids=["None", "list", "mlx"])
def test_a_sequence_cut_anywhere_equals_the_whole(build, reference, sizes, make):
    check_pieces(build(), reference, sizes, make(2 if reference is not channel_mix_reference else 1))


@pytest.mark.parametrize(("build", "reference"), CASES)
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 13, 20], [16, 16, 8]], ids=len)
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_row_of_a_ragged_batch_equals_its_single_run(build, reference, sizes, side):
    check_ragged(build(), reference, sizes, side)


@pytest.mark.parametrize(("build", "reference"), CASES)
def test_padding_anywhere_is_as_if_it_were_not_there(build, reference):
    """In the middle of a sequence, with a cache, and not a number."""
    layer, x = build(), sequence(1, 30)
    mask = mx.array(np.random.default_rng(3).random(30) < 0.6)[None]
    real = mx.array(np.flatnonzero(np.array(mask[0])))
    expected, *states = reference(layer, x[:, real])
    x = mx.where(mask[..., None], x, mx.nan)
    cache, parts = None, []
    for part, seen in zip(mx.split(x, [11, 12], axis=1), mx.split(mask, [11, 12], axis=1), strict=True):
        y, cache = layer(part, seen, cache)
        parts.append(y)
    close(mx.concatenate(parts, axis=1)[:, real], expected)
    for found, state in zip(cache, states, strict=True):
        close(found, state)


def test_a_row_of_padding_keeps_the_shift_state():
    x, state = sequence(2, 3), sequence(2, 1, seed=8)
    mask = mx.array([[False] * 3, [True, False, False]])
    before, last = token_shift(x, mask, state)
    np.testing.assert_array_equal(np.array(last), np.array(mx.stack([state[0], x[1, :1]])))
    np.testing.assert_array_equal(np.array(before[1, 0]), np.array(state[1, 0]))


@pytest.mark.parametrize(("build", "reference"), CASES)
def test_gradient_of_the_layer_agrees_with_differences_of_the_float64_layer(build, reference):
    layer = build()
    check_gradient(layer, reference, 40, layer.layer if isinstance(layer, Reading) else layer)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_decays_at_both_ends_stay_exact(shift):
    layer, x = time_mix(BASE), sequence(length=150)
    layer.w_lora.lora[2].bias = layer.w_lora.lora[2].bias + shift
    with np.errstate(over="ignore"):
        expected = time_mix_reference(BASE)(layer, x)
    y, cache = layer(x)
    for found, wanted in zip((y, *cache), expected, strict=True):
        close(found, wanted, 1e-5)


def test_a_key_of_zeros_has_a_gradient():
    layer, x = time_mix(BASE), sequence(length=5)
    layer.k_k = mx.zeros_like(layer.k_k)
    gradients = nn.value_and_grad(layer, lambda x: layer(x)[0].sum())(x)[1]
    for name, gradient in tree_flatten(gradients):
        assert mx.isfinite(gradient).all(), name


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize(("build", "reference"), CASES)
def test_low_precision_keeps_its_type_and_a_float32_state(build, reference, dtype):
    layer, x = build(), sequence(length=60).astype(dtype)
    layer.set_dtype(dtype)

    class Rounded:
        parameters = staticmethod(lambda: {n: v.astype(mx.float32) for n, v in tree_flatten(layer.parameters())})

    expected, *_ = reference(Rounded, x.astype(mx.float32))
    y, cache = layer(x)
    assert (y.dtype, cache[0].dtype, cache[-1].dtype) == (dtype, dtype, dtype if len(cache) == 1 else mx.float32)
    close(y.astype(mx.float32), expected, 0.05 if dtype == mx.bfloat16 else 0.006)


def mlx_lm_arguments(**changes):
    sizes = {"model_type": "rwkv7", "vocab_size": 97, "hidden_size": HIDDEN, "intermediate_size": 20, "norm_eps": 1e-5}
    return rwkv7.ModelArgs(**sizes | {"num_hidden_layers": 3, "head_dim": 4, **RANKS} | changes)


@pytest.mark.parametrize("index", [0, 1])
def test_it_is_the_time_mixing_of_mlx_lm(index):
    """The first layer publishes its values, a later one reads them."""
    x, published = sequence(), {}
    layer = time_mix(VARIANTS[2] if index else BASE)
    layer = layer.layer if index else layer
    theirs = rwkv7.Rwkv7TimeMixing(mlx_lm_arguments(), index)
    theirs.load_weights(tree_flatten(layer.parameters()))
    ours, their_cache = ArraysCache(2), ArraysCache(3)
    for part in mx.split(x, [20, 21, 30], axis=1):
        given = {"value": other(part)} if index else {"publish": published.__setitem__}
        y, _ = layer(part, None, ours, **given)
        values = mx.unflatten(other(part), -1, (3, 4)) if index else None
        expected, first = theirs(part, values, their_cache)
        close(y, expected, 1e-5)
        if not index:
            close(published["value"], first.flatten(2))
    close(ours[0], their_cache[0])
    close(ours[1], their_cache[1], 1e-5)


def test_it_is_the_channel_mixing_of_mlx_lm():
    layer, theirs = channel_mix(), rwkv7.Rwkv7ChannelMixing(mlx_lm_arguments())
    theirs.load_weights(tree_flatten(layer.parameters()))
    ours, their_cache = ArraysCache(1), ArraysCache(3)
    for part in mx.split(sequence(), [20, 21], axis=1):
        close(layer(part, None, ours)[0], theirs(part, their_cache))


NORM = {"type": "layer_norm", "eps": 1e-5}
MODEL = {
    "version": 1,
    "name": "rwkv7",
    "dims": {"hidden_size": 64, "vocab_size": 97},
    "norm": NORM,
    "final_norm": NORM,
    "embedding": {"norm": NORM | {"bias": True}},
    "head": {"tied": False},
    "components": {
        "first": {"type": "rwkv7_time_mix", **RANKS, "head_dim": 16},
        "attn": {"type": "rwkv7_time_mix", **RANKS, "head_dim": 16, "value_from": "first"},
        "ffn": {"type": "rwkv7_channel_mix", "intermediate_size": 96},
    },
    "blocks": {"start": ["first", "ffn"], "layer": ["attn", "ffn"]},
    "stack": "start layer*3",
}


def test_a_whole_model_passes_every_truth():
    report = check(load(MODEL))
    assert report.passed, [truth for truth in report.truths if not truth.passed]


def test_all_layers_read_the_values_of_the_first():
    layers = load(MODEL).plan().layers
    reads = [use.reads for layer in layers for use in layer.uses() if use.spec.name == "rwkv7_time_mix"]
    assert reads == [{}, *[{"value": "0.first.value"}] * 3]
    assert not any("v_lora" in name for use in layers[0].uses() for name in use.params)


def test_values_of_another_width_are_refused():
    components = MODEL["components"] | {"first": MODEL["components"]["first"] | {"num_heads": 2}}
    with pytest.raises(ArchitectureError, match="its values are 32 wide, not 64"):
        load(MODEL | {"components": components}).plan()


def test_logits_of_a_whole_model_are_those_of_mlx_lm():
    ours = load(MODEL).build()
    arguments = mlx_lm_arguments(hidden_size=64, head_dim=16, intermediate_size=96, num_hidden_layers=4)
    theirs = rwkv7.Model(arguments)
    names = {"embedding.embed_tokens": "model.embeddings", "embedding.norm": "model.layers.0.pre_norm"}
    names |= {"head.lm_head": "lm_head", "layers": "model.layers", "norm": "model.norm"}
    rng, weights = np.random.default_rng(0), {}
    for name, value in tree_flatten(ours.parameters()):
        weight = value + mx.array((0.1 * rng.normal(size=value.shape)).astype(np.float32))
        ours.load_weights([(name, weight)], strict=False)
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        weights[(names[prefix] + name.removeprefix(prefix)).replace(".first", ".attn")] = weight
    theirs.load_weights(list(weights.items()), strict=True)

    tokens = mx.array(rng.integers(0, 97, (1, 40)))
    close(ours(tokens), theirs(tokens), 2e-5)
    cache, their_cache = ours.make_cache(), make_prompt_cache(theirs)
    for part in mx.split(tokens, [30, 31, 32], axis=1):
        close(ours(part, cache), theirs(part, their_cache), 2e-5)


@pytest.mark.parametrize("example", [*TIME.examples, BASE, BASE | {"value_from": "first"}], ids=str)
def test_the_record_of_time_mixing_states_what_is_built(example):
    options, dims = RWKV7TimeMixOptions.model_validate(example), Dims({"hidden_size": 32, "vocab_size": 8})
    layer = RWKV7TimeMix.from_options(options, dims)
    check_declared(TIME, Reading(layer) if options.value_from else layer, options, dims)


@pytest.mark.parametrize("example", CHANNEL.examples, ids=str)
def test_the_record_of_channel_mixing_states_what_is_built(example):
    options = RWKV7ChannelMixOptions.model_validate(example)
    check_declared(CHANNEL, RWKV7ChannelMix.from_options(options, DIMS), options, DIMS)


def test_a_new_layer_remembers_many_tokens():
    layer = RWKV7TimeMix(RWKV7TimeMixOptions(), 64)
    decay = np.exp(-np.exp(-0.5) * sigmoid(np.array(layer.w_lora.lora[2].bias)))
    assert 0.999 < decay.max() < 1
    assert 0.89 < decay.min() < 0.9
    assert (np.diff(decay) < 0).all()


@pytest.mark.parametrize(("head_dim", "small"), [(64, 16), (16, 16), (8, 8), (24, 8), (None, 16)])
def test_shrinking_keeps_a_width_that_divides(head_dim, small):
    written = {"head_dim": head_dim} if head_dim else {}
    assert shrunk(TIME, written | {"value_from": "first"}) == {
        "head_dim": small,
        "value_from": "first",
        **dict.fromkeys(RANKS, 8),
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head_dim": 0}, "greater than 0"),
        ({"gate_low_rank_dim": 0}, "greater than 0"),
        ({"num_heads": 0}, "greater than 0"),
        ({"hidden_size": 8}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        RWKV7TimeMixOptions.model_validate(options)


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"`hidden_size` \(12\) is not a multiple of `head_dim` \(5\)"):
        RWKV7TimeMix(RWKV7TimeMixOptions(head_dim=5), HIDDEN)
