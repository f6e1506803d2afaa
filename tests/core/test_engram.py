"""Engram against the layer written out in float64, however a sequence is cut, padded and continued."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache

from axon_compose.registry import Dims, Registry
from axon_core.engram import Engram
from axon_core.specs import _hashing
from axon_core.specs.engram import EngramOptions

VOCABULARY = 4000
BASE = {"rows": 40, "longest": 3, "tables": 2, "width": 6, "norm_eps": 1e-3}
VARIANTS = [
    ({}, 1),
    ({"eos": 3, "norm_offset": 1.0, "multiple": 16}, 3),
    ({"longest": 4, "index": 2, "seed": 2**60, "eos": 7, "d_conv": 3, "dilation": 2}, 2),
    ({"longest": 2, "d_conv": 1}, 2),
]
variants = pytest.mark.parametrize(("fields", "streams"), VARIANTS, ids=str)


def build(fields, streams):
    mx.random.seed(0)
    options = EngramOptions(**(BASE | fields))
    layer = Engram.from_options(options, Dims({"hidden_size": 8 * streams, "vocab_size": VOCABULARY}, streams=streams))
    moved = [(name, value + mx.random.normal(value.shape)) for name, value in tree_flatten(layer.parameters())]
    layer.load_weights(moved)
    mx.eval(layer.parameters())
    return layer


def inputs(streams, length=14, batch=2, seed=1):
    """A stream, and tokens of which every third ends a text."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCABULARY, (batch, length))
    tokens[rng.random(tokens.shape) < 0.3] = 3
    return mx.array(rng.normal(size=(batch, length, 8 * streams)).astype(np.float32)), mx.array(tokens)


def unit(x, streams, eps):
    parts = x.reshape(streams, -1)
    return (parts / np.sqrt((parts**2).mean(-1, keepdims=True) + eps)).reshape(-1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(layer, x, tokens, streams):
    """One token after the other, with the integers of Python."""
    o = layer.options
    weights = {name: np.array(value, dtype=np.float64) for name, value in tree_flatten(layer.parameters())}
    factors = _hashing.multipliers(o.longest, VOCABULARY, o.seed, o.index)
    scale = {n: o.norm_offset + weights[f"{n}_norm.weight"] for n in ("key", "query", "conv")}
    y = np.zeros(x.shape)
    for row, text in enumerate(np.array(tokens).tolist()):
        before = []
        for t, token in enumerate(text):
            start = max((i + 1 for i in range(t) if text[i] == o.eos), default=0)
            found, mixed = [], token * factors[0]
            for back in range(1, o.longest):
                last = text[t - back] if t - back >= start else (o.eos or 0)
                mixed ^= last * factors[back]
                for size in o.sizes[(back - 1) * o.tables : back * o.tables]:
                    found.append(mixed % size + sum(o.sizes[: len(found)]))
            e = weights["embedder.weight"][found].reshape(-1)
            keys = unit(weights["key_proj.weight"] @ e, streams, o.norm_eps) * scale["key"]
            queries = unit(np.array(x[row, t], np.float64), streams, o.norm_eps) * scale["query"]
            g = (keys * queries).reshape(streams, -1).sum(-1) / 8**0.5
            gates = sigmoid(np.sign(g) * np.sqrt(np.maximum(abs(g), 1e-6)))
            v = (gates[:, None] * (weights["value_proj.weight"] @ e)).reshape(-1)
            before.append(unit(v, streams, o.norm_eps) * scale["conv"])
            taps = weights["conv1d.weight"][..., 0]
            total = np.zeros_like(v)
            for back in range(o.d_conv):
                at = t - back * (o.dilation or o.longest)
                if at >= 0:
                    total += taps[:, o.d_conv - 1 - back] * before[at]
            y[row, t] = v + total * sigmoid(total)
    return y


@variants
def test_equals_the_layer_in_float64(fields, streams):
    layer, (x, tokens) = build(fields, streams), inputs(streams)
    got, _ = layer(x, tokens=tokens)
    np.testing.assert_allclose(np.array(got), reference(layer, x, tokens, streams), rtol=2e-5, atol=2e-5)


@variants
@pytest.mark.parametrize("cuts", [[14], [1] * 14, [5, 1, 8]], ids=str)
def test_cached_equals_one_pass(fields, streams, cuts):
    layer, (x, tokens) = build(fields, streams), inputs(streams)
    cache, start, pieces = ArraysCache(2), 0, []
    for length in cuts:
        piece = slice(start, start + length)
        pieces.append(layer(x[:, piece], None, cache, tokens=tokens[:, piece])[0])
        start += length
    assert mx.abs(mx.concatenate(pieces, axis=1) - layer(x, tokens=tokens)[0]).max().item() < 1e-5


@variants
@pytest.mark.parametrize("left", [True, False])
def test_padding_is_neither_a_token_nor_an_input(fields, streams, left):
    layer, (x, tokens) = build(fields, streams), inputs(streams)
    junk = mx.full((1, 5, 8 * streams), float("nan")), tokens[:1, :5]
    own = x[1:, :9], tokens[1:, :9]
    padded = [mx.concatenate(pair if left else pair[::-1], axis=1) for pair in zip(junk, own, strict=True)]
    real = slice(5, 14) if left else slice(9)
    mask = mx.zeros((1, 14), dtype=mx.bool_)
    mask[:, real] = True
    got, states = layer(padded[0], mask, tokens=padded[1])
    whole, _ = layer(x[1:], tokens=tokens[1:])
    assert mx.abs(got[:, real] - whole[:, :9]).max().item() < 1e-5
    going_on, _ = layer(x[1:, 9:], None, states, tokens=tokens[1:, 9:])
    assert mx.abs(going_on - whole[:, 9:]).max().item() < 1e-5


def test_the_generator_is_splitmix64():
    """What the published generator gives first with the seeds 0 and 1234567."""
    assert _hashing._mixed(_hashing._STEP) == 0xE220A8397B1DCDAF
    assert _hashing._mixed(1234567 + _hashing._STEP) == 6457827717110365317


def test_products_of_hashes_stay_positive():
    for vocabulary in (2, 97, 248_320):
        factors = _hashing.multipliers(6, vocabulary, seed=5, index=3)
        assert len(set(factors)) == 6
        assert all(factor % 2 and 0 < factor * (vocabulary - 1) < 2**63 for factor in factors)


def test_tables_have_primes_that_no_other_layer_has():
    first, second = (EngramOptions(rows=20_000_000, index=index).sizes for index in (0, 1))
    assert len(first) == 16
    assert min(first) >= 20_000_000
    assert list(first + second) == sorted(set(first + second))
    assert not any(size % divisor == 0 for size in first for divisor in (2, 3, 5, 7, 11, 13))


@pytest.mark.parametrize("name", ["engram", "ngram_embedding"])
def test_the_end_of_texts_is_a_token(name):
    spec = Registry.installed().component(name)
    options = spec.options(rows=40, width=6, eos=9)
    assert spec.params(options, Dims({"hidden_size": 8, "vocab_size": 10}))
    with pytest.raises(ValueError, match=r"`eos` \(9\) is not a token: `vocab_size` is 9"):
        spec.params(options, Dims({"hidden_size": 8, "vocab_size": 9}))
