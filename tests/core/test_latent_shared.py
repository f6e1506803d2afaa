"""What layers of latent attention take from earlier ones: latents, choices of tokens, learned rotary frequencies."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import KVCache, QuantizedKVCache
from piecewise import off

from axon_compose import ArchitectureError, load
from axon_compose.plan import total_parameters
from axon_compose.registry import KV, Composite, Dims
from axon_core.latent_attention import LatentAttention
from axon_core.specs.latent_attention import SPECS, LatentAttentionOptions
from axon_core.temperature import LogScaling

(SPEC,) = SPECS
DIMS = Dims({"hidden_size": 32, "vocab_size": 61})
SMALL = {"num_heads": 4, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
INDEXER = {"num_heads": 8, "head_dim": 12, "top_k": 6, "query_norm": True, "log_scaling": True}
LEARNED = SMALL | {"rope": {"learned": True, "theta": 50.0}, "log_scaling": True}
LAYERS = {
    "first": LEARNED | {"indexer": INDEXER},
    "still": SMALL | {"rope": False, "qk_nope_head_dim": 20, "qk_rope_head_dim": 0, "index_from": "first"},
    "again": LEARNED | {"kv_from": "first", "alphas_from": "first", "indexer": INDEXER},
    "late": LEARNED | {"kv_from": "first", "alphas_from": "first", "index_from": "again"},
    "own": LEARNED | {"alphas_from": "first"},
    "last": SMALL | {"rope": False, "qk_nope_head_dim": 20, "qk_rope_head_dim": 0, "kv_from": "still"},
}
TOKENS = mx.random.randint(0, 61, (2, 50), key=mx.random.key(0))


def described(layers=LAYERS, **changes):
    components = {name: {"type": "latent_attention", **options} for name, options in layers.items()}
    for name, more in changes.items():
        components[name] = more if "type" in more else components[name] | more
    return {
        "version": 1,
        "name": "reading",
        "dims": dict(DIMS),
        "components": components,
        "stack": {"layers": len(layers), "block": [f"=[{', '.join(layers)}][i]"]},
    }


@pytest.fixture(scope="module")
def model():
    """All six layers, with weights that make each of them matter."""
    built = load(described()).build()
    mx.random.seed(1)
    built.update(tree_map(lambda a: a + 0.3 * mx.random.normal(a.shape), built.parameters()))
    mx.eval(built.parameters())
    return built


def steps(model, cuts, cache, tokens=TOKENS):
    outputs, at = [], 0
    for length in cuts:
        outputs.append(model(tokens[:, at : at + length], cache))
        mx.eval(outputs[-1])
        at += length
    return mx.concatenate(outputs, axis=1)


def test_each_tensor_is_there_once_and_readers_have_none_of_their_own(model):
    names = [name for name, _ in tree_flatten(model.parameters())]
    assert [name for name in names if "alpha" in name] == ["layers.0.first.rope_alpha"]
    for key in ("kv_a_proj_with_mqa.weight", "kv_a_layernorm.weight"):
        owners = [name.split(".")[2] for name in names if name.endswith(key)]
        assert owners == ["first", "still", "own"]
    assert [name.split(".")[2] for name in names if name.endswith("indexer.wk.weight")] == ["first", "again"]
    assert total_parameters(load(described()).plan()) == sum(a.size for _, a in tree_flatten(model.parameters()))


def test_each_layer_keeps_what_it_makes():
    latents, keys = KV(1, 20, 8), KV(1, 12, 0)
    kept = [layer.cache for layer in load(described()).plan().layers]
    assert kept == [Composite((latents, keys)), KV(1, 20, 0), keys, None, latents, None]


def test_readers_equal_layers_that_have_what_is_read(model):
    """The same weights in layers that read nothing but choices: each with latents and alphas of its own."""
    first, again, late = (model.layers[index][name] for index, name in ((0, "first"), (2, "again"), (3, "late")))
    x = mx.random.normal((2, 40, 32), key=mx.random.key(2))
    published = {}
    first(x, publish=published.__setitem__)
    for reader, options in ((again, LAYERS["again"]), (late, LAYERS["late"])):
        options = {name: value for name, value in options.items() if name not in ("kv_from", "alphas_from")}
        owner = LatentAttention.from_options(LatentAttentionOptions.model_validate(options), DIMS)
        owner.update(reader.parameters())
        owner.update({name: first[name].parameters() for name in ("kv_a_proj_with_mqa", "kv_a_layernorm")})
        owner.rope_alpha = first.rope_alpha
        selection = published["selection"] if reader is late else (None, None)
        read = {"kv": published["kv"], "alphas": published["alphas"], "selection": selection}
        assert off(reader(x, **read)[0], owner(x, selection=selection)[0]) < 1e-5


@pytest.mark.parametrize("cuts", [[20, 30], [3] + [1] * 47, [1, 1, 40, 1, 7]], ids=str)
def test_cached_equals_one_pass(model, cuts):
    assert off(steps(model, cuts, model.make_cache()), model(TOKENS)) < 2e-5


def test_latents_of_a_quantised_cache():
    """8 bits in groups of 32 keep them to about 1 in 250; what a reader makes of them is not further off."""
    wide = {"num_heads": 4, "kv_lora_rank": 64, "qk_nope_head_dim": 16, "qk_rope_head_dim": 32}
    mx.random.seed(5)
    source, reader = (
        LatentAttention.from_options(LatentAttentionOptions.model_validate(wide | more), DIMS)
        for more in ({}, {"kv_from": "first"})
    )
    x, found = mx.random.normal((1, 40, 32), key=mx.random.key(6)), []
    for cache in (KVCache(), QuantizedKVCache(group_size=32, bits=8)):
        outputs, at = [], 0
        for length in (25, 1, 14):
            piece, offset, published = x[:, at : at + length], cache.offset, {}
            source(piece, cache=cache, publish=published.__setitem__)
            outputs.append(reader(piece, offset=offset, kv=published["kv"])[0])
            at += length
        found.append(mx.concatenate(outputs, axis=1))
    assert off(found[1], found[0]) < 0.02


def test_one_tensor_learns_from_all_layers(model):
    """Its gradient is that of differences of the whole model; choices of tokens, which jump, are left out."""
    free = {name: {"indexer": None, "index_from": None} for name in LAYERS}
    smooth = load(described(**free)).build()
    smooth.update(model.parameters(), strict=False)
    weight = mx.random.normal((2, 50, 61), key=mx.random.key(3)) / 100
    first = smooth.layers[0]["first"]

    def loss(alpha):
        first.rope_alpha = alpha
        return (smooth(TOKENS) * weight).sum()

    at, direction = first.rope_alpha, mx.array([0.5, -1.0, 2.0, 1.0])
    gradient = mx.grad(loss)(at)
    slope = (loss(at + 3e-4 * direction) - loss(at - 3e-4 * direction)) / 6e-4
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-2)
    first.rope_alpha = at
    alone = smooth.layers[0]
    smooth.freeze()
    alone.unfreeze(keys=["rope_alpha"])
    found = tree_flatten(nn.value_and_grad(smooth, lambda m: (m(TOKENS) * weight).sum())(smooth)[1])
    assert [name for name, _ in found] == ["layers.0.first.rope_alpha"]
    assert off(found[0][1], gradient) < 1e-4


def test_a_layer_may_read_one_value_and_be_the_source_of_another():
    plan = load(described()).plan()
    reads = [dict(layer.branches[0].members[0].use.reads) for layer in plan.layers]
    assert reads[2]["kv"] == reads[3]["kv"] == "0.first.kv"
    assert reads[3]["selection"] == "2.again.selection"
    assert reads[4]["alphas"] == "0.first.alphas"
    assert reads[5]["kv"] == "1.still.kv"


@pytest.mark.parametrize(
    ("layer", "changes", "fault"),
    [
        ("again", {"kv_lora_rank": 16}, "`kv_lora_rank` is 16, that of the source 20"),
        ("last", {"kv_from": "first"}, "`qk_rope_head_dim` is 0, that of the source 8"),
        ("again", {"rope": {"learned": True, "theta": 40.0}}, "`rope` differs from that of the source"),
        ("again", {"lora_scale": {"kv": 2.0}}, "`lora_scale.kv` differs"),
        ("own", {"alphas_from": "still"}, "its `rope` has no `learned: true`"),
        ("own", {"qk_rope_head_dim": 4}, "it rotates 8 dimensions, not 4"),
        ("late", {"kv_from": "again"}, "no earlier layer uses"),
        ("last", {"type": "attention", "num_heads": 4, "kv_from": "still"}, "it publishes latents"),
    ],
)
def test_sources_that_do_not_fit(layer, changes, fault):
    with pytest.raises(ArchitectureError, match=fault):
        load(described(**{layer: changes}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_source_layers", [0, 1, 0, 3, 1, 0, 6]),  # not the latest with positions: transformers takes layer 3
        ("kv_source_layers", [0, 1, 0, 3, 0, 3, 6]),  # one with positions for one without
        ("indexer_types", ["full"] * 6 + ["sparse"]),
    ],
)
def test_sources_of_mistral_large_4_that_mean_something_else_are_refused(field, value, tmp_path):
    fixture = Path(__file__).parents[1] / "families" / "fixtures" / "mistral_large4"
    config = json.loads((fixture / "config.json").read_text()) | {field: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError, match=rf"`{field}\[\d\]` is .*, which no case of the formula is for"):
        load(checkpoint=tmp_path)


@pytest.mark.parametrize("offset", [0, 7, mx.array([3, -2, 11])], ids=str)
def test_logarithms_of_positions(offset):
    scaling = LogScaling(4)
    queries = mx.random.normal((3, 4, 5, 6), key=mx.random.key(4))
    np.testing.assert_array_equal(np.array(scaling(queries, offset)), np.array(queries))  # it begins as 1
    scaling.scale, scaling.bias = mx.array([0.1, -0.2, 0.0, 2.0]), mx.array([1.0, 0.5, -1.0, 0.0])
    starts = np.broadcast_to(np.array(offset), (3,))
    positions = np.maximum(starts[:, None] + np.arange(5), 0)
    gain = np.array(scaling.scale)[:, None] * np.log(positions + 1.0)[:, None] + np.array(scaling.bias)[:, None]
    np.testing.assert_allclose(np.array(scaling(queries, offset)), np.array(queries) * gain[..., None], atol=1e-5)
