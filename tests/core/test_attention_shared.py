"""Keys and values of one attention layer, published and read by another."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import BatchKVCache, BatchRotatingKVCache, KVCache, QuantizedKVCache, RotatingKVCache
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.attention import Attention
from axon_core.specs.attention import SPECS, AttentionOptions, HeadNormOptions, RopeOptions

DIMS = Dims({"hidden_size": 64, "vocab_size": 8})
CASES = {"same": (None, None), "window in all": (None, 8), "smaller window": (20, 8), "same window": (8, 8)}


def build(seed, window=None, **fields):
    mx.random.seed(seed)
    fields = {"num_heads": 2, "num_kv_heads": 1, "window_size": window, "rope": RopeOptions()} | fields
    layer = Attention.from_options(AttentionOptions(**fields), DIMS)
    mx.eval(layer.parameters())
    return layer


def pair(case):
    """A source, a reader, and a reader that owns equal projections: what the reader must equal."""
    window, smaller = CASES[case]
    source, reader, owner = build(0, window), build(1, smaller, kv_from="source"), build(1, smaller)
    owner.update({"q_proj": reader.q_proj.parameters(), "o_proj": reader.o_proj.parameters()})
    owner.update({"k_proj": source.k_proj.parameters(), "v_proj": source.v_proj.parameters()})
    return source, reader, owner


def step(source, reader, x, cache):
    """Both layers read `x`; the reader gets a mask of its own window, and the position before the update."""
    masks = [
        create_attention_mask(x, cache, window_size=layer.window_size)
        if layer.window_size is None or x.shape[1] == 1
        else None
        for layer in (source, reader)
    ]
    offset = 0 if cache is None else cache.offset
    published = {}
    source(x, masks[0], cache, offset=offset, publish=published.__setitem__)
    return reader(x, masks[1], offset=offset, kv=published["kv"])[0]


def inputs(length=90, batch=1):
    return mx.random.normal((batch, length, 64), key=mx.random.key(2))


def cached(case, x, cache, cuts):
    source, reader, owner = pair(case)
    outputs, at = [], 0
    for length in cuts:
        outputs.append(step(source, reader, x[:, at : at + length], cache))
        at += length
    return mx.concatenate(outputs, axis=1), owner


@pytest.mark.parametrize("case", CASES)
def test_without_a_cache(case):
    source, reader, owner = pair(case)
    np.testing.assert_allclose(np.array(step(source, reader, inputs(), None)), np.array(owner(inputs())[0]), atol=3e-6)


@pytest.mark.parametrize("cuts", [[90], [40, 1, 49], [30] + [1] * 60], ids=["one shot", "chunks", "steps"])
@pytest.mark.parametrize("case", CASES)
def test_with_a_cache(case, cuts):
    window = CASES[case][0]
    y, owner = cached(case, inputs(), RotatingKVCache(window) if window else KVCache(), cuts)
    np.testing.assert_allclose(np.array(y), np.array(owner(inputs())[0]), atol=3e-6)


@pytest.mark.parametrize("cuts", [[90], [40, 1, 49], [30] + [1] * 60], ids=["one shot", "chunks", "steps"])
@pytest.mark.parametrize("case", CASES)
def test_rows_padded_left(case, cuts):
    window, padding = CASES[case][0], [0, 50, 87]
    cache = BatchRotatingKVCache(window, padding) if window else BatchKVCache(padding)
    x = inputs(batch=3)
    y, owner = cached(case, x, cache, cuts)
    for i, pad in enumerate(padding):
        np.testing.assert_allclose(np.array(y[i, pad:]), np.array(owner(x[i : i + 1, pad:])[0][0]), atol=3e-6)


@pytest.mark.parametrize("case", ["same", "window in all"])
def test_quantised_source(case):
    """8 bits in groups of 32 keep keys and values to about 1 in 250; what is read must not be further off."""
    y, owner = cached(case, inputs(), QuantizedKVCache(group_size=32, bits=8), [40, 1, 49])
    want = np.array(owner(inputs())[0])
    np.testing.assert_allclose(np.array(y), want, atol=0.02 * np.abs(want).max())


def test_published_values_are_arrays():
    source = build(0)
    published = {}
    source(inputs(), publish=published.__setitem__)
    assert [value.shape for _, value in tree_flatten(published["kv"]) if value is not None] == [(1, 1, 90, 32)] * 2
    padded = {}
    source(inputs(batch=2), cache=BatchKVCache([3, 0]), publish=padded.__setitem__)
    assert padded["kv"][2].tolist() == [3, 0]


def test_a_reader_has_neither_projections_nor_norms_of_keys():
    reader = Attention.from_options(
        AttentionOptions.model_validate({"num_heads": 2, "qk_norm": True, "kv_from": "a"}), DIMS
    )
    names = {name for name, _ in tree_flatten(reader.parameters())}
    assert names == {"q_proj.weight", "o_proj.weight", "q_norm.weight"}


def test_the_source_learns_from_its_readers():
    source, reader, _ = pair("same")

    def loss(params):
        source.update(params)
        return step(source, reader, inputs(), None).sum()

    grads = mx.grad(loss)(source.trainable_parameters())
    assert mx.abs(grads["k_proj"]["weight"]).max() > 1e-4
    assert mx.abs(grads["v_proj"]["weight"]).max() > 1e-4


@pytest.mark.parametrize(
    ("reader", "source", "fault"),
    [
        ({}, {}, None),
        ({"window_size": 8}, {}, None),
        ({"window_size": 8}, {"window_size": 8}, None),
        ({"num_heads": 8, "head_dim": 16}, {"num_kv_heads": 2}, None),
        ({"num_heads": 8}, {}, "`head_dim` is 8, that of the source 16"),
        ({"num_heads": 2, "head_dim": 16}, {}, "`num_heads` (2) is not a multiple of the source's `num_kv_heads` (4)"),
        ({"rope": None}, {}, "`rope` differs from that of the source, whose keys are already rotated"),
        ({}, {"window_size": 8}, "the source keeps 8 tokens: give a `window_size` of at most 8"),
        ({"window_size": 9}, {"window_size": 8}, "the source keeps 8 tokens: give a `window_size` of at most 8"),
    ],
)
def test_sources_that_do_not_fit(reader, source, fault):
    reads = AttentionOptions.model_validate({"num_heads": 4, "kv_from": "source"} | reader)
    assert SPECS[0].accepts(reads, AttentionOptions.model_validate({"num_heads": 4} | source), DIMS) == fault


def test_a_source_of_another_kind_is_left_to_itself():
    assert SPECS[0].accepts(AttentionOptions(num_heads=4, kv_from="other"), {"anything": 1}, DIMS) is None


MOVED = {"qk_norm": HeadNormOptions(when="after_rope", eps=1e-3), "k_norm_scale": "queries"}


def stirred(layer):
    """The same layer with uneven scales of norms."""
    for name in ("q_norm", "k_norm"):
        layer[name].weight = mx.random.uniform(0.5, 2.0, layer[name].weight.shape, key=mx.random.key(7 + len(name)))
    return layer


def test_the_scale_of_keys_may_multiply_queries():
    """The scores are the same, whatever is multiplied."""
    moved = stirred(build(0, num_heads=4, num_kv_heads=2, **MOVED))
    plain = build(0, num_heads=4, num_kv_heads=2, **MOVED | {"k_norm_scale": "keys"})
    plain.update(moved.parameters())
    x = inputs(20, 2)
    assert mx.abs(moved(x)[0] - plain(x)[0]).max() < 1e-5
    assert not mx.allclose(moved.k_norm.weight, mx.ones(16))


def test_a_reader_has_a_scale_of_its_own_for_the_keys_that_it_reads():
    source, reader = stirred(build(0, **MOVED)), build(1, kv_from="source", **MOVED)
    reader.k_norm.weight = mx.random.uniform(0.5, 2.0, (32,), key=mx.random.key(3))
    owner = build(1, **MOVED | {"k_norm_scale": "keys"})
    owner.update({name: reader[name].parameters() for name in ("q_proj", "o_proj", "q_norm", "k_norm")})
    owner.update({name: source[name].parameters() for name in ("k_proj", "v_proj")})
    x = inputs(20)
    assert mx.abs(step(source, reader, x, None) - owner(x)[0]).max() < 1e-5
    cache = KVCache()
    pieces = [step(source, reader, part, cache) for part in mx.split(x, [13, 14], axis=1)]
    assert mx.abs(mx.concatenate(pieces, axis=1) - owner(x)[0]).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k_norm_scale": "queries"}, "needs a `qk_norm`"),
        ({"k_norm_scale": "queries", "qk_norm": True}, "after_rope"),
        ({"k_norm_scale": "queries", "qk_norm": {"when": "after_rope", "per_head": True}}, "does not go with"),
    ],
)
def test_a_scale_that_cannot_be_moved_is_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        AttentionOptions(num_heads=2, **options)


def test_a_reader_and_its_source_agree_on_the_scale_of_keys():
    plain = AttentionOptions(num_heads=2, qk_norm=MOVED["qk_norm"])
    reader = AttentionOptions(num_heads=2, kv_from="source", **MOVED)
    assert "`k_norm_scale` differs" in SPECS[0].accepts(reader, plain, DIMS)
