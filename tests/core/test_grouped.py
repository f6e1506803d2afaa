"""Experts that take many tokens in blocks: the blocks themselves, and what comes out against a loop in float64."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchGLU, SwitchMLP

import axon_core.experts
import axon_core.grouped
from axon_core.experts import ExpertGLU, ExpertMLP
from axon_core.grouped import group

WIDTH, INNER = 6, 10


@pytest.fixture(autouse=True, params=["reference", "other"])
def blas(request, monkeypatch):
    for module in (axon_core.grouped, axon_core.linear):
        monkeypatch.setattr(module, "is_reference_blas", lambda: request.param == "reference")
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


@st.composite
def choices(draw):
    """Experts of some tokens: any number of each, even none."""
    num_experts, each = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    tokens = draw(st.integers(-(-axon_core.grouped._LEAST * num_experts // each), 200))
    favoured = draw(st.lists(st.integers(0, num_experts - 1), min_size=1, max_size=num_experts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.choice(favoured, size=(tokens, each)), num_experts


@given(choices())
def test_blocks(given_choices):
    """Every pair has a column of its own, in a block of its expert, that holds its token."""
    indices, num_experts = given_choices
    groups = group(mx.array(indices.astype(np.uint32)), num_experts)
    tokens, experts, places = (np.array(a) for a in groups)
    assert len(set(places.tolist())) == indices.size
    blocks, columns = tokens.shape
    assert blocks <= indices.size // columns + num_experts
    np.testing.assert_array_equal(experts[places // columns], indices.ravel())
    np.testing.assert_array_equal(tokens.ravel()[places], np.repeat(np.arange(len(indices)), indices.shape[1]))


def layer_of(kind, num_experts=3, bias=True):
    mx.random.seed(0)
    layer = kind(WIDTH, INNER, num_experts, bias=bias)
    layer.update({name: {p: mx.random.normal(v.shape) for p, v in part.items()}
                  for name, part in layer.parameters().items() if part})  # fmt: skip
    return layer


def inputs(tokens=70, num_experts=3, each=2):
    rng = np.random.default_rng(tokens)
    x = rng.normal(size=(1, tokens, WIDTH)).astype(np.float32)
    # None for the last expert.
    chosen = np.stack([rng.permutation(max(num_experts - 1, each))[:each] for _ in range(tokens)])
    return mx.array(x), mx.array(chosen[None].astype(np.uint32))


def loop(layer, x, indices):
    """Every pair by itself, in float64."""
    p = {name: np.array(value.astype(mx.float32), np.float64) for name, value in tree_flatten(layer.parameters())}
    x = np.array(x.astype(mx.float32), np.float64)

    def linear(name, v, e):
        return p[f"{name}.weight"][e] @ v + p.get(f"{name}.bias", np.zeros((99, 1)))[e]

    def silu(v):
        return v / (1 + np.exp(-v))

    def expert(v, e):
        if isinstance(layer, ExpertMLP):
            return linear("fc2", silu(linear("fc1", v, e)), e)
        return linear("down_proj", silu(linear("gate_proj", v, e)) * linear("up_proj", v, e), e)

    return np.array([[[expert(v, e) for e in row] for v, row in zip(x[0], indices[0].tolist(), strict=True)]])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [ExpertGLU, ExpertMLP])
def test_values(kind, bias, dtype, monkeypatch):
    taken = []
    original = axon_core.experts.group
    monkeypatch.setattr(axon_core.experts, "group", lambda *given: taken.append(1) or original(*given))
    layer = layer_of(kind, bias=bias)
    layer.set_dtype(dtype)
    x, indices = inputs()
    x = x.astype(dtype)
    got = layer(x, indices)
    assert taken == [1]
    assert (got.shape, got.dtype) == ((1, 70, 2, WIDTH), dtype)
    wanted = loop(layer, x, indices)
    # One rounding of the result, of its own size, in bfloat16.
    close = 1e-5 if dtype == mx.float32 else 2**-8
    assert np.abs(np.array(got.astype(mx.float32)) - wanted).max() <= close * np.abs(wanted).max()
    assert layer(x[:, :5], indices[:, :5]).shape == (1, 5, 2, WIDTH)
    assert taken == [1]


@pytest.mark.parametrize("kind", [ExpertGLU, ExpertMLP])
def test_gradients(kind, monkeypatch):
    layer = layer_of(kind)
    x, indices = inputs()
    weight = mx.random.normal((1, 70, 2, WIDTH), key=mx.random.key(3))

    def gradients():
        loss = nn.value_and_grad(layer, lambda x: (weight * layer(x, indices)).sum())
        dx = mx.grad(lambda x: (weight * layer(x, indices)).sum())(x)
        return [dx, *(g for _, g in tree_flatten(loss(x)[1]))]

    got = gradients()
    monkeypatch.setattr(axon_core.experts, "is_worth_grouping", lambda *_: False)
    for one, other in zip(got, gradients(), strict=True):
        assert mx.abs(one - other).max() <= 1e-5 * mx.abs(other).max()


@pytest.mark.parametrize(("kind", "theirs"), [(ExpertGLU, SwitchGLU), (ExpertMLP, SwitchMLP)])
def test_what_was_changed_goes_the_usual_way(kind, theirs, monkeypatch):
    layer = kind(32, 64, 3)
    nn.quantize(layer, group_size=32, bits=8, class_predicate=lambda _, m: hasattr(m, "to_quantized"))
    monkeypatch.setattr(axon_core.experts, "group", None)
    rng = np.random.default_rng(0)
    x = mx.array(rng.normal(size=(1, 70, 32)).astype(np.float32))
    assert mx.array_equal(layer(x, inputs()[1]), theirs.__call__(layer, x, inputs()[1]))


def test_compiled():
    layer = layer_of(ExpertGLU)
    x, indices = inputs()
    assert mx.allclose(mx.compile(lambda x, i: layer(x, i))(x, indices), layer(x, indices), atol=1e-5)
