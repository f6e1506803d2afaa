"""Which layer has which cache, and which masks a forward pass makes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import mlx.core as mx
import mlx_lm.models.cache as caches
import models
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, make_prompt_cache

import axon_compose
from axon_compose.proof.check._batches import with_left_padding


def test_one_slot_for_each_layer_that_keeps_something() -> None:
    model = models.model(
        "a f b f c", a=["ssm"], f=["mlp"], b=["swa", "moe"], c=["attn", {"use": "mlp", "norm": "post"}]
    )
    cache = make_prompt_cache(model)
    assert [type(leaf) for leaf in cache] == [ArraysCache, RotatingKVCache, KVCache]
    assert cache[1].max_size == 8
    assert [layer.slot for layer in model.plan.layers] == [0, None, 1, None, 2]
    model(models.tokens(1, 11), cache)
    assert [leaf.empty() for leaf in cache] == [False] * 3
    assert (cache[1].offset, cache[2].offset) == (11, 11)


def test_children_stand_in_branch_order() -> None:
    model = models.model("a b", a=[{"parallel": ["ssm", "attn"]}, "swa"], b=["swa", {"parallel": ["attn", "ssm"]}])
    first, second = model.make_cache()
    assert [type(child) for child in first.caches] == [ArraysCache, KVCache, RotatingKVCache]
    assert [type(child) for child in second.caches] == [RotatingKVCache, KVCache, ArraysCache]
    model(models.tokens(2, 5), [first, second])
    assert [child.empty() for leaf in (first, second) for child in leaf.caches] == [False] * 6
    # Keys and values of the heads that each component has, not of another.
    assert first[1].keys.shape[1] == second[1].keys.shape[1] == 2
    assert first[0][1].shape == second[2][1].shape == (2, 4, 64)


def test_readers_and_reused_layers() -> None:
    """A reader has no cache; a layer that reuses weights has its own."""
    reading = models.model("a b", a=["attn"], b=["reader", "mlp"])
    assert [type(leaf) for leaf in reading.make_cache()] == [KVCache]
    sharing = models.model("a*3", a={"branches": ["swa", "mlp"], "share": "one"})
    assert [type(leaf) for leaf in sharing.make_cache()] == [RotatingKVCache] * 3


def test_wrong_number_of_caches() -> None:
    model = models.flagship()
    with pytest.raises(ValueError, match="the cache has 2 slots, the model has 3"):
        model(models.tokens(1, 2), model.make_cache()[:2])


class Counting:
    """Masks that caches make in the form of arrays, by class; forms without an array cost nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: Counter[str] = Counter()
        for name in ("BatchKVCache", "BatchRotatingKVCache", "ArraysCache", "KVCache", "RotatingKVCache"):
            monkeypatch.setattr(getattr(caches, name), "make_mask", self.counted(getattr(caches, name), name))

    def counted(self, kind: Any, name: str) -> Any:
        original = kind.make_mask

        def make_mask(cache: Any, *arguments: Any, **rest: Any) -> Any:
            mask = original(cache, *arguments, **rest)
            self.made[name] += isinstance(mask, mx.array)
            return mask

        return make_mask

    def during(self, model: Any, tokens: mx.array, cache: Any) -> dict[str, int]:
        self.made.clear()
        mx.eval(model(tokens, cache))
        return {name: count for name, count in self.made.items() if count}


def test_one_mask_for_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many layers: one array for full attention, one for each window, one for states."""
    model = models.model("(a b c d)*3", a=["ssm"], b=["swa"], c=["wide"], d=[{"parallel": ["ssm", "attn"]}])
    assert [(g.kind, g.window, g.form) for g in model.plan.masks] == [
        ("state", None, "dense"),
        ("kv", 8, "banded"),
        ("kv", 12, "banded"),
        ("kv", None, "dense"),
    ]
    cache = [with_left_padding(leaf, [3, 0]) for leaf in model.make_cache()]
    counting = Counting(monkeypatch)
    # Banded layers cut their window themselves and read the padding from the cache: no array of L times L.
    assert counting.during(model, models.tokens(2, 20), cache) == {"BatchKVCache": 1, "ArraysCache": 1}
    single = counting.during(model, models.tokens(2, 1), cache)
    assert single == {"BatchKVCache": 1, "ArraysCache": 1, "BatchRotatingKVCache": 2}


def test_no_array_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.model("(a b c)*2", a=["ssm"], b=["swa"], c=["attn"])
    counting, cache = Counting(monkeypatch), model.make_cache()
    for length in (20, 1, 1):
        assert counting.during(model, models.tokens(1, length), cache) == {}


def test_children_of_a_list_are_merged_and_padded() -> None:
    """The composite in mlx-lm's own protocol, rows of unequal length."""
    model = models.model("a*2", a=[{"parallel": ["ssm", "swa"]}, "mlp"])
    lengths = [14, 9, 3]
    rows = [models.tokens(1, length + 2, seed=length) for length in lengths]
    cache = [leaves[0].merge(list(leaves)) for leaves in zip(*(model.make_cache() for _ in rows), strict=True)]
    assert all(isinstance(leaf, CacheList) for leaf in cache)
    padded = mx.concatenate([mx.pad(row[:, :-2], [(0, 0), (0, 16 - row.shape[1])]) for row in rows])
    for leaf in cache:
        leaf.prepare(lengths=lengths, right_padding=[14 - length for length in lengths])
    got = mx.concatenate([model(padded[:, :6], cache), model(padded[:, 6:], cache)], axis=1)
    for leaf in cache:
        leaf.finalize()
    after = [model(mx.concatenate([row[:, i:][:, :1] for row in rows]), cache) for i in (-2, -1)]
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        alone = model(row)[0]
        assert models.close(got[i, :length], alone[:length])
        assert models.close(mx.concatenate([step[i] for step in after]), alone[length:])


def test_state_that_keeps_nothing() -> None:
    """A convolution over one token has an empty state beside that of the recurrence."""
    description = models.description("a", a=["ssm"])
    description["components"]["ssm"]["d_conv"] = 1
    model = axon_compose.load(description).build()
    row, cache = models.tokens(2, 7), model.make_cache()
    got = mx.concatenate([model(row[:, :4], cache), model(row[:, 4:5], cache), model(row[:, 5:], cache)], axis=1)
    assert models.close(got, model(row))
    assert cache[0][0].shape == (2, 0, 64)
