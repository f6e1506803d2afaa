"""The token embedding: values, factored tables, declared parameters."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.embedding import TokenEmbedding
from axon_core.specs.embedding import SPECS, TokenEmbeddingOptions

DIMS = Dims({"hidden_size": 32, "vocab_size": 11})
EMBEDDING = SPECS[0]
TOKENS = mx.array([[0, 10, 3], [3, 3, 7]])


def build(**fields):
    mx.random.seed(0)
    return TokenEmbedding.from_options(TokenEmbeddingOptions.model_validate(fields), DIMS)


def array(x):
    return np.array(x, dtype=np.float64)


def test_plain_and_scaled():
    for scale in (None, 5.0):
        embedding = build(scale=scale)
        want = array(embedding.embed_tokens.weight)[np.array(TOKENS)] * (scale or 1.0)
        np.testing.assert_allclose(array(embedding(TOKENS)), want, atol=1e-6)
        assert embedding.width == 32


def test_factored():
    embedding = build(size=24, scale=2.0)
    table, projection = array(embedding.embed_tokens.weight), array(embedding.in_proj.weight)
    np.testing.assert_allclose(array(embedding(TOKENS)), 2.0 * table[np.array(TOKENS)] @ projection.T, atol=1e-6)
    assert embedding.width == 24


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_a_rounded_factor(dtype):
    """Of 53 ** 0.5 = 7.2801, bfloat16 keeps 7.28125."""
    embedding = build(scale=53**0.5, scale_dtype="bfloat16")
    assert embedding.scale == 7.28125
    assert build(scale=53**0.5).scale == 53**0.5
    embedding.set_dtype(dtype)
    h = embedding(TOKENS)
    assert h.dtype == dtype
    table = embedding.embed_tokens.weight[TOKENS]
    np.testing.assert_array_equal(
        np.array(h.astype(mx.float32)), np.array((table * mx.array(7.28125, dtype)).astype(mx.float32))
    )


@pytest.mark.parametrize("kind", ["rms_norm", "layer_norm"])
@pytest.mark.parametrize("weight", [True, False])
def test_norm_after_the_factor(kind, weight):
    embedding = build(scale=3.0, norm={"type": kind, "eps": 0.1, "weight": weight, "bias": kind == "layer_norm"})
    for name, value in tree_flatten(embedding.norm.parameters()):
        embedding.norm[name] = mx.random.normal(value.shape)
    x = 3.0 * array(embedding.embed_tokens.weight)[np.array(TOKENS)]
    x = x - x.mean(-1, keepdims=True) if kind == "layer_norm" else x
    want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1)
    want = want * (array(embedding.norm.weight) if weight else 1)
    want = want + (array(embedding.norm.bias) if kind == "layer_norm" else 0)
    np.testing.assert_allclose(array(embedding(TOKENS)), want, atol=2e-6)


def test_the_rms_norm_of_an_embedding_has_no_shift():
    with pytest.raises(ValidationError, match="`bias` needs `type: layer_norm`"):
        TokenEmbeddingOptions.model_validate({"norm": {"bias": True}})


def test_size_equal_to_the_hidden_size_needs_no_projection():
    assert {name for name, _ in tree_flatten(build(size=32).parameters())} == {"embed_tokens.weight"}


def test_as_linear_scores_every_vector_of_the_table():
    embedding = build(size=24, scale=2.0)
    h = mx.random.normal((2, 3, 24))
    np.testing.assert_allclose(
        array(embedding.as_linear(h)), array(h) @ array(embedding.embed_tokens.weight).T, atol=1e-5
    )


@pytest.mark.parametrize("example", [*EMBEDDING.examples, *(shrunk(EMBEDDING, e) for e in EMBEDDING.examples)])
def test_declared_parameters_are_the_built_ones_and_learn(example):
    embedding = build(**example)
    built = {name: a.shape for name, a in tree_flatten(embedding.parameters())}
    assert built == EMBEDDING.params(TokenEmbeddingOptions.model_validate(example), DIMS)
    _, grads = nn.value_and_grad(embedding, lambda m: (m(TOKENS) ** 2).sum())(embedding)
    for name, grad in tree_flatten(grads):
        assert mx.isfinite(grad).all(), name
        assert mx.abs(grad).max() > 1e-4, name


def test_a_scaled_bfloat16_table_stays_bfloat16():
    embedding = build(size=24, scale=2.0)
    embedding.set_dtype(mx.bfloat16)
    assert embedding(TOKENS).dtype == mx.bfloat16


def test_works_quantised():
    embedding = TokenEmbedding(11, 64)
    nn.quantize(embedding, group_size=32, bits=8)
    assert isinstance(embedding.embed_tokens, nn.QuantizedEmbedding)
    assert embedding.as_linear(embedding(TOKENS)).shape == (2, 3, 11)


def test_faulty_options():
    for fields in ({"size": 0}, {"size": 3.5}, {"scale": "=sqrt(2)"}, {"width": 3}):
        with pytest.raises(ValidationError):
            TokenEmbeddingOptions.model_validate(fields)


def test_positions_may_begin_further_on():
    embedding = build(positions=16, first_position=2)
    want = array(embedding.embed_tokens.weight)[np.array(TOKENS)]
    length = TOKENS.shape[1]
    np.testing.assert_allclose(
        array(embedding(TOKENS, offset=3)), want + array(embedding.embed_positions.weight)[5 : 5 + length], atol=1e-6
    )
    with pytest.raises(ValidationError, match="`first_position` is an index below `positions`"):
        TokenEmbeddingOptions.model_validate({"first_position": 2})


def test_sinusoidal_positions():
    embedding = build(positions="sinusoidal", first_position=2)
    assert {name for name, _ in tree_flatten(embedding.parameters())} == {"embed_tokens.weight"}
    width, at = embedding.embed_tokens.weight.shape[1], np.arange(TOKENS.shape[1]) + 5
    rates = 10000 ** (-np.arange(width // 2) / (width // 2 - 1))
    waves = np.concatenate([np.sin(at[:, None] * rates), np.cos(at[:, None] * rates)], axis=-1)
    got = array(embedding(TOKENS, offset=3)) - array(embedding.embed_tokens.weight)[np.array(TOKENS)]
    np.testing.assert_allclose(got, np.broadcast_to(waves, got.shape), atol=2e-6)
    for wrong in (0, True, "learned", 1.5):
        with pytest.raises(ValidationError, match="`positions` is a whole number above 0"):
            TokenEmbeddingOptions.model_validate({"positions": wrong})
