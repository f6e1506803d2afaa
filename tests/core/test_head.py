"""The head: tied and untied scores, bias, scale, cap, declared parameters."""

from math import prod

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from axon_compose.registry import Dims
from axon_core.embedding import TokenEmbedding
from axon_core.head import LMHead
from axon_core.specs.embedding import SPECS, LMHeadOptions, TokenEmbeddingOptions

EMBEDDING, HEAD = SPECS
VOCAB, HIDDEN = 11, 32


def dims(size=HIDDEN):
    return Dims({"hidden_size": HIDDEN, "vocab_size": VOCAB, "embedding_size": size})


def build(size=HIDDEN, **fields):
    mx.random.seed(0)
    embedding = TokenEmbedding(VOCAB, HIDDEN, size)
    head = LMHead.from_options(LMHeadOptions.model_validate(fields), dims(size))
    if "bias" in head:
        head.bias = mx.random.normal((VOCAB,))
    return embedding, head


def inputs():
    return 4 * mx.random.normal((2, 3, HIDDEN), key=mx.random.key(1))


def array(x):
    return np.array(x, dtype=np.float64)


@pytest.mark.parametrize("size", [HIDDEN, 24])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "rest", [{}, {"bias": True}, {"scale": 0.5, "bias": True}, {"softcap": 3.0, "scale": 2.0}], ids=str
)
def test_equals_the_definition(size, tied, rest):
    embedding, head = build(size, tied=tied, **rest)
    h = array(inputs())
    if tied:
        h = h @ array(head.out_proj.weight).T if size != HIDDEN else h
        logits = h @ array(embedding.embed_tokens.weight).T + (array(head.bias) if "bias" in rest else 0.0)
    else:
        logits = h @ array(head.lm_head.weight).T + (array(head.lm_head.bias) if "bias" in rest else 0.0)
    logits = logits * rest.get("scale", 1.0)
    if "softcap" in rest:
        logits = rest["softcap"] * np.tanh(logits / rest["softcap"])
    np.testing.assert_allclose(array(head(inputs(), embedding)), logits, atol=5e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_beyond_the_tokens_have_no_scores(tied):
    rows = VOCAB + 5
    mx.random.seed(0)
    table = TokenEmbeddingOptions(padded_vocab_size=rows)
    embedding = TokenEmbedding.from_options(table, dims())
    known = Dims({**dims(), "embedding_rows": rows}) if tied else dims()
    options = LMHeadOptions(tied=tied, bias=True, softcap=3.0, padded_vocab_size=None if tied else rows)
    head = LMHead.from_options(options, known)
    holder = head if tied else head.lm_head
    holder.bias = mx.random.normal((rows,))
    assert {name: a.shape for name, a in tree_flatten(head.parameters())} == HEAD.params(options, known)
    assert EMBEDDING.params(table, dims())["embed_tokens.weight"] == (rows, HIDDEN)
    matrix = embedding.embed_tokens.weight if tied else head.lm_head.weight
    logits = 3.0 * np.tanh((array(inputs()) @ array(matrix).T + array(holder.bias)) / 3.0)
    np.testing.assert_allclose(array(head(inputs(), embedding)), logits[..., :VOCAB], atol=5e-6)
    assert HEAD.flops(options, known, 7, 7) == 2 * 7 * rows * HIDDEN


def test_softcap_in_bfloat16_is_computed_in_float32():
    """Scores far above the cap differ by less than bfloat16's step there only if the tangent is taken in float32."""
    embedding, head = build(softcap=30.0)
    for module in (embedding, head):
        module.set_dtype(mx.bfloat16)
    h = (8 * inputs()).astype(mx.bfloat16)
    plain = embedding.as_linear(h)
    got = head(h, embedding)
    assert got.dtype == mx.bfloat16
    want = mx.array(30.0 * np.tanh(array(plain.astype(mx.float32)) / 30.0)).astype(mx.bfloat16)
    assert mx.array_equal(got, want)


@pytest.mark.parametrize("size", [HIDDEN, 24])
@pytest.mark.parametrize("example", HEAD.examples, ids=str)
def test_declared_parameters_are_the_built_ones_and_learn(example, size):
    embedding, head = build(size, **example)
    built = {name: a.shape for name, a in tree_flatten(head.parameters())}
    assert built == HEAD.params(LMHeadOptions.model_validate(example), dims(size))
    if not built:
        return
    weights = mx.random.normal((2, 3, VOCAB), key=mx.random.key(3))
    _, grads = nn.value_and_grad(head, lambda m: (m(inputs(), embedding) * weights).sum())(head)
    for name, grad in tree_flatten(grads):
        assert mx.isfinite(grad).all(), name
        assert mx.abs(grad).max() > 1e-4, name


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = build()

    def __call__(self, tokens):
        return self.head(self.embedding(tokens), self.embedding)


def test_tied_weights_stay_tied_after_a_step():
    model = Tied()
    assert [name for name, _ in tree_flatten(model.parameters())] == ["embedding.embed_tokens.weight"]
    tokens = mx.array([[1, 2]])
    before = array(model.embedding.embed_tokens.weight)
    _, grads = nn.value_and_grad(model, lambda m: nn.losses.cross_entropy(m(tokens), tokens).sum())(model)
    optim.SGD(1.0).update(model, grads)
    table = array(model.embedding.embed_tokens.weight)
    # Tokens that were never read learn as scores only: the head's part of the gradient reaches the table.
    assert (np.abs(table - before).max(axis=1) > 1e-4).all()
    h = inputs()
    np.testing.assert_allclose(array(model.head(h, model.embedding)), array(h) @ table.T, atol=5e-6)


def test_sizes_of_the_published_model():
    """A table of 32000 x 2048 for a hidden size of 2560, tied."""
    known = Dims({"hidden_size": 2560, "vocab_size": 32000, "embedding_size": 2048})
    shapes = EMBEDDING.params(TokenEmbeddingOptions(size=2048), known) | HEAD.params(LMHeadOptions(), known)
    assert shapes == {
        "embed_tokens.weight": (32000, 2048),
        "in_proj.weight": (2560, 2048),
        "out_proj.weight": (2048, 2560),
    }
    assert sum(map(prod, shapes.values())) == 32000 * 2048 + 2 * 2560 * 2048
