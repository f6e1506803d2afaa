"""Attention to compressed tokens: entries against sums written out, and mlx-lm's caches that hold them in pieces."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, load_prompt_cache, save_prompt_cache
from piecewise import in_pieces, off
from pydantic import ValidationError

from axon_compose.model import make_caches
from axon_compose.registry import KV, Array, Composite, Dims, State
from axon_core.compressed_attention import CompressedAttention
from axon_core.compressor import Compressor, Progress
from axon_core.specs.compressed_attention import SPECS, CompressedAttentionOptions
from axon_core.specs.latent_attention import LatentRopeOptions

(SPEC,) = SPECS
DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
SMALL = SPEC.examples[0]
KINDS = {
    "window": {},
    "heavy": {"compression": {"ratio": 8}},
    "sparse": {"compression": {"ratio": 4, "overlap": True, "indexer": {"num_heads": 8, "head_dim": 16, "top_k": 3}}},
}
kinds = pytest.mark.parametrize("kind", KINDS)
LENGTH = 61


def options(kind):
    return CompressedAttentionOptions.model_validate(SMALL | KINDS[kind])


def build(kind):
    mx.random.seed(0)
    layer = CompressedAttention.from_options(options(kind), DIMS)
    layer.update(tree_map(lambda a: 2 * a + 0.1 * mx.random.normal(a.shape), layer.parameters()))
    mx.eval(layer.parameters())
    return layer


def inputs(batch=1, length=LENGTH, seed=1):
    return mx.random.normal((batch, length, 32), key=mx.random.key(seed))


def fresh(kind):
    return make_caches([SPEC.cache(options(kind), DIMS)])[0]


def run(layer, x, cache, cuts):
    return in_pieces(lambda piece: layer(piece, cache=cache)[0], x, cuts)


@pytest.mark.parametrize("overlap", [False, True])
def test_entries_are_sums_of_their_tokens(overlap):
    mx.random.seed(3)
    rope = LatentRopeOptions(theta=100.0)
    part = Compressor(32, 16, 4, overlap, rope, 8, 1e-5)
    part.update(tree_map(lambda a: a + 0.3 * mx.random.normal(a.shape), part.parameters()))
    x = inputs(length=14)
    entries, _, _ = part(x, [None, None, None], Progress(4, 14, 0, 14))
    values, gates = (np.array(proj(x)[0], np.float64) for proj in (part.kv_proj, part.gate_proj))
    bias, scale = np.array(part.position_bias, np.float64), np.array(part.kv_norm.weight, np.float64)
    for number in range(3):
        own = slice(4 * number, 4 * number + 4)
        terms = [(values[own, -16:], gates[own, -16:] + bias[:, -16:])]
        if overlap and number:
            before = slice(4 * number - 4, 4 * number)
            terms.append((values[before, :16], gates[before, :16] + bias[:, :16]))
        value, gate = (np.concatenate(pair) for pair in zip(*terms, strict=True))
        weight = np.exp(gate) / np.exp(gate).sum(axis=0)
        entry = (weight * value).sum(axis=0)
        entry = entry / np.sqrt((entry**2).mean() + 1e-5) * scale
        for pair in range(4):
            angle = 4 * number / 100.0 ** (2 * pair / 8)
            a, b = entry[8 + 2 * pair], entry[9 + 2 * pair]
            entry[8 + 2 * pair] = a * np.cos(angle) - b * np.sin(angle)
            entry[9 + 2 * pair] = a * np.sin(angle) + b * np.cos(angle)
        assert np.abs(np.array(entries[0, 1 + number]) - entry).max() < 1e-5
    assert entries.shape[1] == 1 + 3


@kinds
@pytest.mark.parametrize("cuts", [[LENGTH], [30, 1, 1, 29], [5, 3, 53], [1] * LENGTH], ids=str)
def test_cached_equals_one_pass(kind, cuts):
    layer, x = build(kind), inputs(2)
    assert off(run(layer, x, fresh(kind), cuts), layer(x)[0]) < 1e-5


@kinds
def test_rows_of_a_batch_are_what_they_are_alone(kind):
    """Rows that meet after prompts of unequal length complete their entries at different steps."""
    layer, x = build(kind), inputs(3, 50)
    starts, caches, want = [3, 20, 13], [], []
    for row, start in enumerate(starts):
        caches.append(fresh(kind))
        layer(x[row : row + 1, :start], cache=caches[-1])
        want.append(layer(x[row : row + 1, : start + 30])[0][:, start:])
    batch = type(caches[0]).merge(caches)
    got = []
    for step in range(30):
        piece = mx.concatenate([x[row : row + 1, start + step, None] for row, start in enumerate(starts)])
        got.append(layer(piece, cache=batch)[0])
    assert off(mx.concatenate(got, axis=1), mx.concatenate(want)) < 1e-5
    alone = batch.extract(1)
    after = layer(x[1:2, 49:], cache=alone)[0]
    assert after.shape == (1, 1, 32)


def test_caches_are_those_of_mlx_lm(tmp_path):
    layer, x, cache = build("sparse"), inputs(), fresh("sparse")
    assert isinstance(cache, CacheList)
    assert [type(child) for child in cache.caches] == [RotatingKVCache, KVCache, ArraysCache]
    run(layer, x[:, :40], cache, [38, 1, 1])
    save_prompt_cache(str(tmp_path / "cache.safetensors"), [cache])
    (again,) = load_prompt_cache(str(tmp_path / "cache.safetensors"))
    assert off(run(layer, x[:, 40:], again, [1, 10, 10]), layer(x)[0][:, 40:]) < 1e-5


def test_sizes_of_caches():
    states = [Array("values", (7, 32)), Array("gates", (7, 32)), Array("entry", (1, 16))]
    states += [Array(f"index_{array.name}", array.shape) for array in states]
    pieces = KV(1, 4, 4)  # a quarter of an entry for each token, of both compressors
    assert SPEC.cache(options("sparse"), DIMS) == Composite((KV(1, 16, 0, window=8), pieces, State(tuple(states))))
    assert SPEC.cache(options("window"), DIMS) == KV(1, 16, 0, window=8)


def test_what_is_far_is_seen_through_entries():
    far = [build(kind)(inputs())[0] for kind in ("window", "heavy")]
    moved = mx.concatenate([inputs()[:, :1] + 1, inputs()[:, 1:]], axis=1)
    window, heavy = (
        off(build(kind)(moved)[0][:, -1:], same[:, -1:]) for kind, same in zip(("window", "heavy"), far, strict=True)
    )
    assert window == 0
    assert heavy > 1e-4


def test_no_gradient_reaches_an_indexer():
    layer = build("sparse")
    assert not any("indexer" in name for name, _ in tree_flatten(layer.trainable_parameters()))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"o_groups": 3}, "not a multiple of `o_groups`"),
        ({"compression": {"ratio": 5}}, "`head_dim` .16. is not a multiple of the `ratio` .5."),
        ({"rope": {"dims": 18}}, "more than `head_dim`"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, fault):
    with pytest.raises(ValidationError, match=fault):
        CompressedAttentionOptions.model_validate(SMALL | changes)
