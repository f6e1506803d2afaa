"""The attention layers without a cache: values, causality, gradients, dtypes, parameters, options."""

import attention_reference as reference
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from pydantic import ValidationError

from axon_compose.registry import KV, Dims
from axon_core.attention import Attention, SlidingWindowAttention
from axon_core.specs.attention import SPECS, AttentionOptions, SlidingWindowAttentionOptions

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
ATTENTION, SLIDING = SPECS


def build(seed=0, **fields):
    mx.random.seed(seed)
    sliding = "window_size" in fields
    options = (SlidingWindowAttentionOptions if sliding else AttentionOptions).model_validate(fields)
    layer = (SlidingWindowAttention if sliding else Attention).from_options(options, DIMS)
    # Norm weights start at one; random ones show whether they are used at the right place.
    layer.apply_to_modules(
        lambda _, m: "eps" in vars(m) and m.update({"weight": mx.random.uniform(0.5, 2, m.weight.shape)})
    )
    mx.eval(layer.parameters())
    return layer


def inputs(length, batch=1, seed=1, width=32):
    return mx.random.normal((batch, length, width), key=mx.random.key(seed))


CASES = {
    "plain": ({"num_heads": 4, "rope": None}, {}),
    "rope": ({"num_heads": 4}, {"periods": [10000.0 ** (i / 4) for i in range(4)]}),
    "partial rope": (
        {"num_heads": 2, "rope": {"theta": 100.0, "fraction": 0.25, "traditional": True}},
        {"periods": [1.0, 10.0], "traditional": True},
    ),
    "grouped": ({"num_heads": 4, "num_kv_heads": 2, "rope": None, "bias": True}, {}),
    "one kv head, wide": ({"num_heads": 4, "num_kv_heads": 1, "head_dim": 24, "rope": None}, {}),
    "scale": ({"num_heads": 4, "rope": None, "scale": 0.9}, {"scale": 0.9}),
    "norm before rope": (
        {"num_heads": 4, "num_kv_heads": 2, "qk_norm": {"eps": 0.1}},
        {"periods": [10000.0 ** (i / 4) for i in range(4)], "norm_eps": 0.1},
    ),
    "bias of some": ({"num_heads": 2, "rope": None, "bias": {"q": True, "o": True}}, {}),
    "window": ({"num_heads": 4, "window_size": 9}, {"window": 9}),
    "window, grouped, rope": (
        {"num_heads": 4, "num_kv_heads": 2, "window_size": 7, "rope": {}},
        {"window": 7, "periods": [10000.0 ** (i / 4) for i in range(4)]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition(case):
    fields, known = CASES[case]
    layer = build(**fields)
    x = inputs(40)
    y, cache = layer(x)
    assert cache is None
    want = reference.layer(layer, np.array(x[0], dtype=np.float64), **known)
    np.testing.assert_allclose(np.array(y[0]), want, atol=5e-6)


@pytest.mark.parametrize("window", [1, 2, 7, 8, 9, 64, 65, 200])
def test_windows(window):
    layer = SlidingWindowAttention(32, 4, window)
    x = inputs(150)
    want = reference.layer(layer, np.array(x[0], dtype=np.float64), window=window)
    np.testing.assert_allclose(np.array(layer(x)[0][0]), want, atol=5e-6)


def test_documented_attributes():
    layer = SlidingWindowAttention(32, 4, 9)
    assert {name for name, _ in tree_flatten(layer.parameters())} == {f"{p}_proj.weight" for p in "qkvo"}
    assert layer.rope is None


@pytest.mark.parametrize("fields", [{"num_heads": 4}, {"num_heads": 4, "window_size": 64}], ids=["full", "window"])
@pytest.mark.parametrize("at", [1, 63, 64, 65, 100, 129])
def test_a_token_moves_nothing_before_it(fields, at):
    layer = build(**fields)
    x = inputs(130)
    moved = mx.concatenate([x[:, :at], -3 * x[:, at : at + 1], x[:, at + 1 :]], axis=1)
    one, other = np.array(layer(x)[0]), np.array(layer(moved)[0])
    np.testing.assert_array_equal(one[:, :at], other[:, :at])
    assert np.abs(one[:, at] - other[:, at]).max() > 1e-3


def test_a_long_prompt_does_not_leak_the_future():
    """Editing tokens from 600 on must leave positions before 600 alone, in a prompt of more than 512."""
    layer = SlidingWindowAttention(32, 4, 64)
    x = inputs(700)
    edited = mx.concatenate([x[:, :600], inputs(100, seed=7)], axis=1)
    one, other = np.array(layer(x)[0]), np.array(layer(edited)[0])
    np.testing.assert_array_equal(one[:, :600], other[:, :600])
    assert np.abs(one[:, 600:] - other[:, 600:]).min(axis=-1).max() > 1e-4


def test_the_window_ends_where_it_says():
    layer = SlidingWindowAttention(32, 4, 9)
    x = inputs(100)
    moved = mx.concatenate([x[:, :50], x[:, 50:51] + 1, x[:, 51:]], axis=1)
    reached = np.abs(np.array(layer(x)[0] - layer(moved)[0])).max(axis=(0, 2)) > 1e-6
    assert np.flatnonzero(reached).tolist() == list(range(50, 59))


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_learns(case):
    layer = build(**CASES[case][0])
    x = inputs(70)
    weights = inputs(70, seed=5)
    _, grads = nn.value_and_grad(layer, lambda m: (m(x)[0] * weights).sum())(layer)
    for name, grad in tree_flatten(grads):
        assert mx.isfinite(grad).all(), name
        # A constant added to every key shifts all scores of a query alike, which softmax cannot see.
        if name != "k_proj.bias" or layer.rope is not None:
            assert mx.abs(grad).max() > 1e-4, name


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_in_bfloat16_out(case):
    layer = build(**CASES[case][0])
    want = layer(inputs(70))[0]
    layer.set_dtype(mx.bfloat16)
    y = layer(inputs(70).astype(mx.bfloat16))[0]
    assert y.dtype == mx.bfloat16
    # Weights, activations and results of five steps are each rounded to 8 bits.
    np.testing.assert_allclose(np.array(y.astype(mx.float32)), np.array(want), atol=0.06)


@pytest.mark.parametrize("fields", [{"num_heads": 4}, {"num_heads": 4, "window_size": 64}], ids=["full", "window"])
def test_an_explicit_mask_is_taken_as_it_is(fields):
    layer = build(**fields)
    x = inputs(10)
    alone = mx.eye(10).astype(mx.bool_)
    values = layer.v_proj(x)
    np.testing.assert_allclose(np.array(layer(x, mask=alone)[0]), np.array(layer.o_proj(values)), atol=1e-6)


def test_memory_of_a_long_prompt_is_linear():
    """Four heads of 4096 x 4096 scores are 256 MiB; activations and the band are a few MiB."""
    layer = SlidingWindowAttention(32, 4, 64)
    x = inputs(4096)
    mx.eval(layer.parameters(), x)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(layer(x)[0])
    assert mx.get_peak_memory() - before < 16 * 2**20


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_declared_parameters_are_the_built_ones(spec):
    own = ("indexer", "relative")
    kv_from = [{**e, "kv_from": "other"} for e in spec.examples if not any(name in e for name in own)]
    for example in (*spec.examples, *kv_from, *(shrunk(spec, e) for e in spec.examples)):
        options = spec.options.model_validate(example)
        layer = Attention.from_options(options, DIMS)
        built = {name: array.shape for name, array in tree_flatten(layer.parameters())}
        assert built == spec.params(options, DIMS), example


def test_cache_spec():
    options = AttentionOptions(num_heads=4, num_kv_heads=2)
    assert ATTENTION.cache(options, DIMS) == KV(2, 8)
    options = SlidingWindowAttentionOptions(num_heads=4, window_size=9)
    assert SLIDING.cache(options, DIMS) == KV(4, 8, window=9)
    assert SLIDING.cache(options.model_copy(update={"kv_from": "other"}), DIMS) is None


def test_shrink_keeps_the_structure():
    long = {"type": "longrope", "factor": 2.0, "original_max_position_embeddings": 64}
    long |= {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}
    written = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "window_size": 4096, "qk_norm": True}
    written |= {"rope": {"dims": 64, "scaling": long}}
    small = shrunk(ATTENTION, written)
    assert (small["num_heads"], small["num_kv_heads"], small["head_dim"], small["window_size"]) == (4, 2, 16, 8)
    assert AttentionOptions.model_validate(small).rope.rotated(16) == 8
    assert written["rope"]["scaling"]["short_factor"] == [1.0] * 32
    assert shrunk(ATTENTION, {"num_heads": 3}) == {"num_heads": 2, "head_dim": 16}
    assert shrunk(ATTENTION, {"num_heads": 16, "num_kv_heads": 1})["num_kv_heads"] == 1


@pytest.mark.parametrize(
    ("fields", "where", "fault"),
    [
        (
            {"num_heads": 6, "num_kv_heads": 4},
            ("num_kv_heads",),
            "`num_heads` (6) is not a multiple of `num_kv_heads` (4)",
        ),
        ({"num_heads": 0}, ("num_heads",), "greater than 0"),
        ({"num_heads": "4"}, ("num_heads",), "valid integer"),
        ({"num_heads": 4, "bias": {"z": True}}, ("bias", "z"), "Extra inputs"),
        ({"num_heads": 4, "qk_norm": {"eps": 0.0}}, ("qk_norm", "eps"), "greater than 0"),
        ({"num_heads": 4, "rope": {"theta": True}}, ("rope", "theta"), "valid number"),
        ({"num_heads": 4, "window": 3}, ("window",), "Extra inputs"),
    ],
)
def test_faulty_options_are_told_at_their_place(fields, where, fault):
    with pytest.raises(ValidationError) as raised:
        AttentionOptions.model_validate(fields)
    (error,) = raised.value.errors()
    assert error["loc"] == where
    assert fault in error["msg"]


def test_a_width_that_does_not_divide():
    with pytest.raises(
        ValueError, match=r"`hidden_size` \(32\) is not a multiple of `num_heads` \(5\); give `head_dim`"
    ):
        ATTENTION.params(AttentionOptions(num_heads=5), DIMS)


def test_short_forms():
    assert AttentionOptions.model_validate({"num_heads": 2, "bias": True}).bias.o
    assert AttentionOptions.model_validate({"num_heads": 2, "qk_norm": False}).qk_norm is None
    assert AttentionOptions(num_heads=2).rope.theta == 10000.0
    assert SlidingWindowAttentionOptions(num_heads=2, window_size=3).rope is None
    with pytest.raises(ValidationError, match="window_size"):
        SlidingWindowAttentionOptions.model_validate({"num_heads": 2})
