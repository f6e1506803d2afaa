"""A transformer layer to the side against float64 NumPy, in pieces, from published matrices, quantised and adapted."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache
from mlx_lm.tuner.lora import LoRALinear
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.side_input import Add, Beside, Side, SideInput
from axon_core.side_transformer import SideTransformer
from axon_core.specs.side_input import SideInputOptions
from axon_core.specs.side_transformer import SPECS, SideTransformerOptions

HIDDEN = 32
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
SIZES = {"num_heads": 4, "head_dim": 8, "intermediate_size": 24, "adapter_rank": 3, "norm_eps": 1e-2}
VARIANTS = [
    SIZES,
    SIZES | {"num_kv_heads": 2, "uses": [1, 3, 5], "use": 3, "attention_adapters": True, "activation": "silu"},
]


def build(fields):
    mx.random.seed(0)
    layer = SideTransformer.from_options(SideTransformerOptions.model_validate(fields), DIMS)
    moved = ((name, value + 0.2 * mx.random.normal(value.shape)) for name, value in tree_flatten(layer.parameters()))
    layer.load_weights(list(moved))
    return layer


def drawn(seed, length=30):
    return mx.random.normal((2, length, HIDDEN), key=mx.random.key(seed))


def definition(layer, fields, x, e):
    """One text of the layer, (L, D), in float64."""
    o = SideTransformerOptions.model_validate(fields)
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}
    own = {name.split(".")[1]: value for name, value in p.items() if name.startswith(f"use_{o.use}.")}
    x, e = np.array(x, np.float64), np.array(e, np.float64)

    def norm(name, z):
        return z / np.sqrt((z**2).mean(-1, keepdims=True) + o.norm_eps) * p[f"{name}.weight"]

    def projected(name, z, down, up):
        y = z @ p[f"{name}_proj.weight"].T
        return y + z @ own[f"{down}_a"].T @ own[f"{up}_b"].T if f"{down}_a" in own else y

    h = norm("input_norm", np.concatenate([x, e], axis=-1))
    q, k, v = (projected(name, h, name, name).reshape(len(x), -1, o.head_dim) for name in "qkv")
    k, v = (np.repeat(a, o.num_heads // o.kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("lhd,shd->hls", q, k) / np.sqrt(o.head_dim / 2)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    a = np.einsum("hls,shd->lhd", weights, v).reshape(len(x), -1) @ p["o_proj.weight"].T
    m = norm("mlp_norm", a)
    gate, up = (projected(name, m, "mlp", name) for name in ("gate", "up"))
    act = gate / (1 + np.exp(-gate)) if o.activation == "silu" else np.array(nn.gelu(mx.array(gate.astype(np.float32))))
    return act * up @ p["down_proj.weight"].T @ p["linear.weight"].T


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [7, 22, 1]], ids=len)
@pytest.mark.parametrize("cached", [True, False])
def test_equals_the_definition(fields, sizes, cached):
    layer, x, e = build(fields), drawn(1), drawn(2)
    cache, outputs, start = KVCache() if cached else None, [], 0
    for size in sizes if cached else [30]:
        y, _ = layer(x[:, start : start + size], None, cache, vectors=e[:, start : start + size])
        outputs.append(y)
        start += size
    for row, found in enumerate(mx.concatenate(outputs, axis=1)):
        want = definition(layer, fields, x[row], e[row])
        assert np.abs(np.array(found) - want).max() < 1e-5 * np.abs(want).max()


def reader(fields, use):
    other = build(fields | {"use": use, "weights_from": "first"})
    assert [name for name, _ in tree_flatten(other.parameters())] == ["linear.weight"]
    return other


def test_another_use_has_the_published_matrices_and_its_own_adapters():
    fields, x, e, published = VARIANTS[1], drawn(1), drawn(2), {}
    first = build(fields)
    first(x, vectors=e, publish=published.__setitem__)
    again = reader(fields, 5)
    y, _ = again(x, vectors=e, weights=published["weights"])
    whole = build(fields | {"use": 5})
    whole.load_weights(list((dict(tree_flatten(first.parameters())) | {"linear.weight": again.linear.weight}).items()))
    want = whole(x, vectors=e)[0]
    assert mx.abs(y - want).max() < 1e-5
    assert mx.abs(y - first(x, vectors=e)[0]).max() > 1e-2


@pytest.mark.parametrize("changed", ["quantised", "adapted", "both"])
def test_what_is_handed_on_is_what_the_first_use_computes_with(changed):
    fields, x, e, published = VARIANTS[0], drawn(1), drawn(2), {}
    first = build(fields)
    if changed != "adapted":
        nn.quantize(first, group_size=32, bits=8, class_predicate=lambda name, part: name in ("q_proj", "up_proj"))
    if changed != "quantised":
        for name in ("q_proj", "v_proj"):
            first[name] = LoRALinear.from_base(first[name], r=2, scale=3.0)
            first[name].lora_b = mx.random.normal(first[name].lora_b.shape, key=mx.random.key(9))
    first(x, vectors=e, publish=published.__setitem__)
    matrices = dict(zip(("q_proj", "k_proj", "v_proj"), published["weights"][2:], strict=False))
    h = mx.random.normal((3, 2 * HIDDEN), key=mx.random.key(4))
    for name, matrix in matrices.items():
        assert mx.abs(first[name](h) - h @ matrix.T).max() < 1e-4


def test_gradients_reach_the_first_use_through_another():
    fields, x, e = VARIANTS[1], drawn(1), drawn(2)
    pair = nn.Module()
    pair.first, pair.again = build(fields), reader(fields, 5)

    def loss(model):
        published = {}
        model.first(x, vectors=e, publish=published.__setitem__)
        return model.again(x, vectors=e, weights=published["weights"])[0].square().sum()

    grads = dict(tree_flatten(nn.value_and_grad(pair, loss)(pair)[1]))
    for name in ("first.q_proj.weight", "first.use_5.q_a.weight", "first.mlp_norm.weight", "again.linear.weight"):
        assert mx.abs(grads[name]).max() > 0, name
    assert mx.abs(grads["first.use_3.q_a.weight"]).max() == 0


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    options = SideTransformerOptions.model_validate(example)
    for fields in (options, options.model_copy(update={"weights_from": "first"})):
        built = SideTransformer.from_options(fields, DIMS)
        assert {name: value.shape for name, value in tree_flatten(built.parameters())} == SPEC.params(fields, DIMS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use": 1}, "none of `uses`"),
        ({"num_kv_heads": 3}, "not a multiple"),
        *(({"activation": name}, "has bounds") for name in ("situ", "swiglu_oai", "swiglu_clipped")),
    ],
    ids=str,
)
def test_wrong_options_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        SideTransformerOptions.model_validate(SIZES | fields)


def test_what_is_beside_the_stream_is_read_by_the_next_branch_alone():
    options = SideInputOptions()
    ends, add, side, beside = (kind.from_options(options, DIMS) for kind in (SideInput, Add, Side, Beside))
    h, y, z, w = (drawn(seed, 3) for seed in range(4))
    x, held = side.read(ends.expand(h))
    assert mx.array_equal(x, h)
    x, held = beside.read(side.write(held, y))
    assert mx.array_equal(x, h + y)
    x, held = add.read(beside.write(held, z))
    assert mx.array_equal(x, h + z)
    assert mx.array_equal(ends.collapse(add.write(held, w)), h + z + w)
