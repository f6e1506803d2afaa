"""Attention to chosen tokens and blocks of them, against mlx-lm's modules and against choices written out."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import deepseek_v32, minimax_m3_vl
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import BatchKVCache, CacheList, KVCache
from piecewise import in_pieces, off
from pydantic import ValidationError

from axon_compose import ArchitectureError, load
from axon_compose.analysis.cost._caches import cache_traffic
from axon_compose.registry import KV, Composite, Dims
from axon_core.attention import Attention
from axon_core.latent_attention import LatentAttention
from axon_core.selection import best, places
from axon_core.specs.attention import SPECS, AttentionOptions
from axon_core.specs.latent_attention import SPECS as LATENT_SPECS
from axon_core.specs.latent_attention import LatentAttentionOptions

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
LATENT = {
    "num_heads": 3,
    "q_lora_rank": 16,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "indexer": {"num_heads": 8, "head_dim": 12, "top_k": 6, "norm_eps": 1e-5},
}
BLOCKS = {
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "rope": {"dims": 8},
    "qk_norm": {"offset": 1.0},
    "indexer": {
        "num_heads": 2,
        "head_dim": 12,
        "block_size": 4,
        "top_k": 3,
        "local_blocks": 1,
        "norm": {"offset": 1.0},
    },
}
MEANS = BLOCKS | {
    "indexer": {
        "num_heads": 5,
        "head_dim": 12,
        "block_size": 4,
        "top_k": 3,
        "norm": {"offset": 1.0},
        "pooling": "mean",
    }
}
LENGTH = 70


def scaled(layer):
    layer.update(tree_map(lambda a: 3 * a, layer.parameters()))  # scores that differ
    mx.eval(layer.parameters())
    return layer


def latent(**fields):
    mx.random.seed(0)
    return scaled(LatentAttention.from_options(LatentAttentionOptions.model_validate(LATENT | fields), DIMS))


def blocks(**fields):
    mx.random.seed(0)
    return scaled(Attention.from_options(AttentionOptions.model_validate(BLOCKS | fields), DIMS))


def means(**fields):
    mx.random.seed(0)
    return scaled(Attention.from_options(AttentionOptions.model_validate(MEANS | fields), DIMS))


def their_latent(layer):
    args = {"num_attention_heads": 3, "hidden_size": 32, "index_n_heads": 8, "index_head_dim": 12, "index_topk": 6}
    theirs = deepseek_v32.DeepseekV32Attention(deepseek_v32.ModelArgs.from_dict(LATENT | args))
    theirs.load_weights(tree_flatten(layer.parameters()), strict=True)
    return theirs


def their_blocks(layer):
    args = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rotary_dim": 8,
        "rope_theta": 10000.0,
        "index_n_heads": 2,
        "index_head_dim": 12,
        "index_block_size": 4,
        "index_topk_blocks": 3,
        "index_local_blocks": 1,
    }
    theirs = minimax_m3_vl.Attention(minimax_m3_vl.TextArgs.from_dict(args), 0)
    named = tree_flatten(layer.parameters())
    theirs.load_weights([(name.replace("indexer.", "index_"), value) for name, value in named], strict=True)
    return theirs


TWINS = {"tokens": (latent, their_latent), "blocks": (blocks, their_blocks)}
KINDS = {"tokens": latent, "blocks": blocks, "means": means}
kinds = pytest.mark.parametrize("kind", KINDS)


def inputs(batch=1, length=LENGTH, seed=1):
    return mx.random.normal((batch, length, 32), key=mx.random.key(seed))


def fresh():
    return CacheList(KVCache(), KVCache())


def run(layer, x, cache, cuts):
    return in_pieces(lambda piece: layer(piece, cache=cache)[0], x, cuts)


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("cuts", [[LENGTH], [40] + [1] * 30], ids=str)
def test_equals_the_module_of_mlx_lm(kind, cuts):
    make, twin = TWINS[kind]
    layer, x, cache = make(), inputs(), fresh()
    theirs = twin(layer)

    def step(piece):
        return theirs(piece, create_attention_mask(piece, cache[0], return_array=True), cache)

    assert off(run(layer, x, fresh(), cuts), in_pieces(step, x, cuts)) < 1e-5


def turned(x, positions):
    """The first 8 dimensions of (..., L, 12) rotated in halves."""
    angles = positions[:, None] / 10000.0 ** (np.arange(4) / 4)
    first, second = x[..., :4], x[..., 4:8]
    pair = first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)
    return np.concatenate([*pair, x[..., 8:]], axis=-1)


def chosen_by_means(indexer, x, size=4, top_k=3):
    """The tokens of each query, (L, L), by the definition in float64."""
    p = {name: np.array(value, np.float64) for name, value in tree_flatten(indexer.parameters())}

    def unit(a, name):
        return a / np.sqrt((a**2).mean(-1, keepdims=True) + indexer.options.norm.eps) * (1 + p[f"{name}_norm.weight"])

    length = len(x)
    queries = unit((x @ p["q_proj.weight"].T).reshape(length, 5, 12), "q").swapaxes(0, 1)
    queries, keys = turned(queries, np.arange(length)), x @ p["k_proj.weight"].T
    chosen = np.zeros((length, length), dtype=bool)
    for t in range(length):
        full = (t + 1) // size
        pooled = unit(keys[: full * size].reshape(full, size, 12).mean(axis=1), "k")
        scores = np.maximum(queries[:, t] @ turned(pooled, size * np.arange(full)).T, 0).sum(axis=0)
        for block in np.argsort(-scores, kind="stable")[:top_k]:
            chosen[t, block * size : (block + 1) * size] = True
        chosen[t, full * size : t + 1] = True
    return chosen


def test_blocks_are_chosen_by_the_mean_of_their_keys():
    layer, x = means(), inputs()
    mask = mx.array(chosen_by_means(layer.indexer, np.array(x[0], np.float64)))
    assert np.array(mask).sum(axis=1).max() == 3 * 4 + 3
    assert off(layer(x)[0], means(indexer=None)(x, mask)[0]) < 1e-5


@kinds
def test_the_choice_matters(kind):
    make = KINDS[kind]
    layer, x = make(), inputs()
    few = layer(x)[0]
    assert off(few[:, :6], make(indexer=None)(x)[0][:, :6]) < 1e-5  # of so few tokens all are chosen
    assert off(few, make(indexer=None)(x)[0]) > 1e-2


@kinds
@pytest.mark.parametrize("cuts", [[LENGTH], [30, 1, 1, 38], [5] + [1] * 65, [1] * LENGTH], ids=str)
def test_cached_equals_one_pass(kind, cuts):
    make = KINDS[kind]
    layer, x = make(), inputs(2)
    assert off(run(layer, x, fresh(), cuts), layer(x)[0]) < 1e-5


@kinds
def test_padding_moves_no_choice(kind):
    """Blocks begin with each sequence, not with the batch."""
    make = KINDS[kind]
    layer, x = make(), inputs(3)
    padding = [0, 5, 30]
    cache = CacheList(BatchKVCache(padding), BatchKVCache(padding))
    got = run(layer, x, cache, [50] + [1] * 20)
    for row, pad in enumerate(padding):
        alone = layer(x[row : row + 1, pad:])[0]
        assert off(got[row : row + 1, pad:], alone) < 1e-5


@kinds
def test_goes_on_after_a_rewind(kind):
    make = KINDS[kind]
    layer, x, cache = make(), inputs(), fresh()
    run(layer, x[:, :50], cache, [50])
    run(layer, inputs(length=10, seed=5), cache, [4, 1, 5])
    cache.trim(10)
    assert off(run(layer, x[:, 50:], cache, [5, 1, 14]), layer(x)[0][:, 50:]) < 1e-5


@kinds
def test_no_graph_is_left_in_the_second_cache(kind, tmp_path):
    """While nothing is left out, nobody reads the indexer's keys; a step computes them all the same."""
    make = KINDS[kind]
    layer, cache = make(), fresh()
    mx.eval(layer(inputs(length=3), cache=cache)[0])
    mx.export_to_dot(str(tmp_path / "graph"), cache[1].keys, cache[1].values)
    assert "Slice" not in (tmp_path / "graph").read_text()


@kinds
def test_no_gradient_reaches_an_indexer(kind):
    make = KINDS[kind]
    layer, x = make(), inputs()
    assert not any("indexer" in name for name, _ in tree_flatten(layer.trainable_parameters()))
    grad = mx.grad(lambda inputs: layer(inputs)[0].square().sum())(x)
    assert mx.isfinite(grad).all().item()


def test_the_best_of_equal_ones_are_the_first():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 9)).astype(np.float32)
    scores[rng.random((50, 9)) < 0.4] = -np.inf
    for count in (1, 4, 8):
        got = np.array(best(mx.array(scores), count))
        for row, chosen in zip(scores, got, strict=True):
            order = [i for i in np.argsort(-row, kind="stable")[:count] if row[i] > -np.inf]
            assert sorted(order) == list(np.flatnonzero(chosen))
        where = np.sort(np.array(places(mx.array(got), count)), axis=-1)
        for chosen, indices in zip(got, where, strict=True):
            assert set(np.flatnonzero(chosen)) <= set(indices.tolist())
            assert len(set(indices.tolist())) == count


def test_caches():
    options = LatentAttentionOptions.model_validate(LATENT)
    assert LATENT_SPECS[0].cache(options, DIMS) == Composite((KV(1, 20, 8), KV(1, 12, 0)))
    assert LATENT_SPECS[0].cache(options, DIMS).nbytes(10, "float32") == 10 * 4 * (20 + 8 + 12)
    chosen = AttentionOptions.model_validate(BLOCKS)
    assert SPECS[0].cache(chosen, DIMS) == Composite((KV(2, 16), KV(1, 12, 0)))
    assert (LATENT_SPECS[0].chosen(options, DIMS), SPECS[0].chosen(chosen, DIMS)) == (6, 12)
    pooled = AttentionOptions.model_validate(MEANS)
    assert SPECS[0].cache(pooled, DIMS) == SPECS[0].cache(chosen, DIMS)
    assert SPECS[0].chosen(pooled, DIMS) == 15


def test_heads_of_an_indexer_that_choose_together_need_not_divide_those_of_attention():
    AttentionOptions.model_validate(MEANS)
    with pytest.raises(ValidationError, match=r"is not a multiple of `indexer\.num_heads`"):
        AttentionOptions.model_validate(MEANS | {"indexer": MEANS["indexer"] | {"pooling": "max"}})
    with pytest.raises(ValidationError, match="`local_blocks` does not go with `pooling: mean`"):
        AttentionOptions.model_validate(MEANS | {"indexer": MEANS["indexer"] | {"local_blocks": 1}})


def stack(**components):
    return {
        "version": 1,
        "name": "chosen",
        "dims": {"hidden_size": 32, "vocab_size": 8},
        "components": {name: {"type": "latent_attention", **options} for name, options in components.items()},
        "stack": {"layers": len(components), "block": [f"={list(components)}[i]".replace("'", "")]},
    }


def test_layers_take_the_choice_of_an_earlier_one():
    follow = {**LATENT, "index_from": "lead"}
    architecture = load(stack(lead=LATENT, follow=follow))
    plan = architecture.plan()
    assert [slot.nbytes(1, "float32") for slot in plan.slots] == [4 * 40, 4 * 28]
    assert not any("layers.1" in name and "indexer" in name for name, _ in plan.parameters())
    model = architecture.build()
    tokens = mx.arange(60)[None] % 8
    want = model(tokens)
    cache = model.make_cache()
    steps = [model(tokens[:, :20], cache), *(model(tokens[:, i : i + 1], cache) for i in range(20, 60))]
    assert off(mx.concatenate(steps, axis=1), want) < 1e-5


@pytest.mark.parametrize(
    ("source", "reader", "fault"),
    [
        ({**LATENT, "indexer": None}, {"index_from": "lead"}, "it has no `indexer`"),
        (LATENT, {"index_from": "lead", "indexer": LATENT["indexer"] | {"top_k": 5}}, "`indexer.top_k` is 5"),
    ],
)
def test_what_cannot_be_taken_is_refused(source, reader, fault):
    with pytest.raises(ArchitectureError, match=fault):
        load(stack(lead=source, follow={**LATENT, **reader}))


def test_a_step_reads_what_is_chosen_and_every_key_of_the_indexer():
    sparse, dense = (load(stack(lead={**LATENT, **changes})).plan() for changes in ({}, {"indexer": None}))
    assert cache_traffic(dense, 1000, "float32") == 4 * 28 * 1001
    assert cache_traffic(sparse, 1000, "float32") == 4 * (28 * 7 + 12 * 1001)
    assert cache_traffic(sparse, 4, "float32") == 4 * 40 * 5
