"""Per-layer inputs and layer scales: against float64 NumPy, and as a plan wires them."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from axon_compose import load
from axon_compose.plan import plan_to_dict
from axon_compose.proof.check import small_architecture
from axon_compose.registry import Dims
from axon_compose.report import PLAIN, show_text
from axon_core.embedding import TokenEmbedding
from axon_core.per_layer import LayerScale, PerLayerInput, PerLayerInputs
from axon_core.specs._per_layer_options import PerLayerOptions
from axon_core.specs.embedding import SPECS, TokenEmbeddingOptions
from axon_core.specs.per_layer import PerLayerInputOptions
from tests.helpers import codes, faults

DIMS = Dims({"hidden_size": 32, "vocab_size": 11})
TOKENS = mx.array([[0, 10, 3], [3, 3, 7]])
READER = {"type": "per_layer_input", "size": 8, "index": "=i"}
PER_LAYER = {"size": 8, "layers": 3}


def array(x):
    return np.array(x, dtype=np.float64)


def moved(module):
    mx.random.seed(1)
    for name, value in tree_flatten(module.parameters()):
        module.load_weights([(name, 0.5 + mx.random.normal(value.shape))], strict=False)
    return module


def test_tokens_beyond_a_short_table_read_its_first_row():
    """MLX checks no index of a table: before this, such tokens read what lies behind it, and training wrote there."""
    inputs = PerLayerInputs(11, 32, PerLayerOptions(**PER_LAYER, vocab_size=4))
    h = mx.random.normal((1, 1, 32), key=mx.random.key(0))
    first, last, beyond = (inputs(mx.array([[token]]), h) for token in (0, 3, 4))
    assert mx.array_equal(beyond, first)
    assert not mx.array_equal(last, first)


@pytest.mark.parametrize("vocab_size", [None, 13])
def test_the_embedding_publishes_inputs_for_every_layer(vocab_size):
    options = {"scale": 3.0, "norm": True, "per_layer": {**PER_LAYER, "vocab_size": vocab_size, "norm_eps": 0.1}}
    parsed = TokenEmbeddingOptions.model_validate(options)
    embedding = moved(TokenEmbedding.from_options(parsed, DIMS))
    assert embedding.per_layer.embed_tokens.weight.shape == (vocab_size or 11, 24)
    assert {n: v.shape for n, v in tree_flatten(embedding.parameters())} == SPECS[0].params(parsed, DIMS)

    published = {}
    h = array(embedding(TOKENS, publish=published.__setitem__))
    p = {name: array(value) for name, value in tree_flatten(embedding.per_layer.parameters())}
    own = p["embed_tokens.weight"][np.array(TOKENS)].reshape(2, 3, 3, 8) * np.sqrt(8)
    seen = (h @ p["proj.weight"].T / np.sqrt(32)).reshape(2, 3, 3, 8)
    seen = seen / np.sqrt((seen**2).mean(-1, keepdims=True) + 0.1) * p["norm.weight"]
    want = (own + seen) / np.sqrt(2)
    np.testing.assert_allclose(array(published["per_layer_inputs"]), want, atol=1e-5)
    np.testing.assert_array_equal(h, array(embedding(TOKENS)))


@pytest.mark.parametrize("index", [0, 2])
def test_a_layer_lets_its_own_in(index):
    options = PerLayerInputOptions.model_validate({"size": 8, "index": index, "activation": "relu"})
    layer = moved(PerLayerInput.from_options(options, DIMS))
    x, inputs = mx.random.normal((2, 3, 32)), mx.random.normal((2, 3, 3, 8))
    gate = np.maximum(array(x) @ array(layer.gate_proj.weight).T, 0)
    want = (gate * array(inputs)[:, :, index]) @ array(layer.down_proj.weight).T
    np.testing.assert_allclose(array(layer(x, inputs)), want, atol=1e-4)


def test_a_layer_scale():
    layer = LayerScale()
    x = mx.random.normal((2, 3, 32))
    np.testing.assert_array_equal(array(layer(x)), array(x))
    layer.scale = mx.array([-2.5])
    np.testing.assert_allclose(array(layer(x)), -2.5 * array(x), rtol=1e-6)


def description(**sections):
    return {
        "version": 1,
        "dims": {"hidden_size": 32, "vocab_size": 97},
        "embedding": {"per_layer": PER_LAYER},
        "components": {"attn": {"type": "attention", "num_heads": 2}, "token": READER, "factor": "layer_scale"},
        "blocks": {"a": ["attn", {"use": "token", "norm": "post"}, "factor"]},
        "stack": "a*3",
    } | sections


def test_the_plan_wires_the_embedding_to_its_readers():
    plan = load(description()).plan()
    assert plan.embedding.writes == ("per_layer_inputs",)
    readers = [use for layer in plan.layers for use in layer.uses() if use.name == "token"]
    assert [dict(use.reads) for use in readers] == [{"per_layer_inputs": "embedding.per_layer_inputs"}] * 3
    assert [use.options.index for use in readers] == [0, 1, 2]
    assert plan_to_dict(plan)["embedding"]["writes"] == ["per_layer_inputs"]
    assert "attn → token ← embedding → factor" in show_text(plan, PLAIN)
    # Nobody reads, nobody publishes.
    assert load(description(blocks={"a": ["attn"]})).plan().embedding.writes == ()


def test_every_layer_reads_its_own():
    model = load(description()).build()
    tokens = mx.array([[5, 6, 7, 8]])
    before = model(tokens)
    cache = model.make_cache()
    stepwise = mx.concatenate([model(tokens[:, i : i + 1], cache) for i in range(4)], axis=1)
    np.testing.assert_allclose(np.array(stepwise), np.array(before), atol=1e-5)
    outputs = []
    table = model.embedding.per_layer.embed_tokens
    kept = table.weight
    for layer in range(3):
        table.weight = kept + 9 * (mx.arange(24) // 8 == layer)
        outputs.append(float(mx.abs(model(tokens) - before).max()))
    assert min(outputs) > 1e-3


@pytest.mark.parametrize(
    ("sections", "code", "message"),
    [
        ({"embedding": {}}, "AX142", "`token` cannot read from the embedding: it has no `per_layer`"),
        ({"embedding": {"per_layer": {"size": 4, "layers": 3}}}, "AX142", "its `per_layer.size` is 4, `size` is 8"),
        ({"embedding": {"per_layer": {"size": 8, "layers": 2}}}, "AX142", "its `per_layer.layers` is 2, `index` is 2"),
    ],
)
def test_an_embedding_that_does_not_fit(sections, code, message):
    assert codes(description(**sections)).count(code) >= 1
    assert message in "\n".join(fault.message for fault in faults(description(**sections)))


def test_a_small_copy_reads_as_the_large_one():
    wide = description(
        dims={"hidden_size": 256, "vocab_size": 5000},
        embedding={"per_layer": {"size": 64, "layers": 30, "vocab_size": 5000}},
        components={
            "attn": {"type": "attention", "num_heads": 2},
            "token": {**READER, "size": 64},
            "factor": "layer_scale",
        },
        stack="a*30",
    )
    small = small_architecture(load(wide).plan()).plan()
    assert len(small.layers) <= 4
    assert small.embedding.writes == ("per_layer_inputs",)
    assert dict(small.embedding.params)["per_layer.embed_tokens.weight"] == (97, 32)
