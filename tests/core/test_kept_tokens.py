"""Keys and values of one more token in mlx-lm's caches, against its own `update_and_fetch`, over hundreds of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache
from stored_layers import drawn

from axon_core.kept_tokens import keep_one

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

HEADS, WIDTH, WIDE = 2, 4, 6

CACHES: dict[str, Callable[[], Any]] = {
    "all": KVCache,
    "a window": lambda: RotatingKVCache(32),
    "a window of one": lambda: RotatingKVCache(1),
    "a window that keeps the first ones": lambda: RotatingKVCache(24, keep=4),
    "a window beyond the first growth": lambda: RotatingKVCache(300),
    "a window that grows and keeps": lambda: RotatingKVCache(300, keep=5),
}
caches = pytest.mark.parametrize("name", CACHES)


def tokens(count: int, seed: int, batch: int = 1, dtype: mx.Dtype = mx.float32) -> tuple[mx.array, mx.array]:
    keys, values = drawn(batch, HEADS, count, WIDTH, seed=seed), drawn(batch, HEADS, count, WIDE, seed=seed + 1)
    return keys.astype(dtype), values.astype(dtype)


def same(a: mx.array, b: mx.array) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and bool(mx.array_equal(a, b))


def step(ours: Any, theirs: Any, seed: int, **more: Any) -> None:
    """One token into both: what is attended to, what is kept, and where the next one goes."""
    keys, values = tokens(1, seed, **more)
    *found, count = keep_one(ours, keys, values)
    truth = theirs.update_and_fetch(keys, values)
    assert all(same(a[:, :, :count], b) for a, b in zip(found, truth, strict=True))
    assert (ours.offset, getattr(ours, "_idx", 0)) == (theirs.offset, getattr(theirs, "_idx", 0))
    for a, b in zip(ours.state, theirs.state, strict=True):
        assert same(a, b) if isinstance(a, mx.array) else a == b


@caches
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_hundreds_of_tokens(name: str, dtype: mx.Dtype) -> None:
    """Over the growth at 256 and 512, and several turns of a ring."""
    ours, theirs = CACHES[name](), CACHES[name]()
    for i in range(620):
        step(ours, theirs, i, batch=2, dtype=dtype)


@caches
@pytest.mark.parametrize("prompt", [2, 23, 31, 33, 256, 300, 330])
def test_tokens_after_a_prompt(name: str, prompt: int) -> None:
    """Also after prompts longer than a window, which is cut at the first token, and after a second one."""
    ours, theirs = CACHES[name](), CACHES[name]()
    for more in (prompt, 7):
        for cache in (ours, theirs):
            cache.update_and_fetch(*tokens(more, 1000))
        for i in range(40):
            step(ours, theirs, i)


@caches
def test_tokens_after_some_are_taken_back(name: str) -> None:
    """As speculative decoding does, while nothing has left the window."""
    ours, theirs = CACHES[name](), CACHES[name]()
    for i in range(20):
        step(ours, theirs, i)
    for back in (1, 5, 14):
        if theirs.is_trimmable():  # no longer, once a window is full
            assert ours.trim(back) == theirs.trim(back)
        for i in range(45):
            step(ours, theirs, 100 * back + i)


@caches
@pytest.mark.parametrize("length", [1, 10, 32, 40, 256, 310])
def test_tokens_after_a_state_is_restored(name: str, length: int) -> None:
    """As prompt caches are read from files."""
    before = CACHES[name]()
    for i in range(length):
        before.update_and_fetch(*tokens(1, i))
    ours, theirs = CACHES[name](), CACHES[name]()
    for cache in (ours, theirs):
        cache.state = [mx.array(each) if isinstance(each, mx.array) else each for each in before.state]
    for i in range(60):
        step(ours, theirs, 1000 + i)


def test_arrays_that_others_hold_stay_as_they_are() -> None:
    """They share memory with the cache only as long as nobody can tell."""
    for cache in (KVCache(), RotatingKVCache(16)):
        held = []
        for i in range(40):
            keys, values, count = keep_one(cache, *tokens(1, i))
            held.append((keys, values, mx.array(keys[:, :, :count]), count))
            if i % 3 == 0:
                mx.eval(held[-1])
        truth = [mx.array(copy) for _, _, copy, _ in held]
        mx.eval(truth)
        for (keys, _, _, count), copy in zip(held, truth, strict=True):
            assert same(keys[:, :, :count], copy)
        assert same(cache.keys, held[-1][0])


def test_tokens_of_another_type_than_the_cache_holds() -> None:
    """A cache of keys or values of 16 bits gets tokens of 32, as where a part of a model has been computed so."""
    for types in ((mx.bfloat16, mx.float32), (mx.float32, mx.bfloat16), (mx.bfloat16, mx.bfloat16)):
        ours, theirs = KVCache(), KVCache()
        for cache in (ours, theirs):
            cache.update_and_fetch(*(each.astype(dtype) for each, dtype in zip(tokens(3, 1), types, strict=True)))
        for i in range(3):
            step(ours, theirs, i)


def test_tokens_that_do_not_fit_are_refused_before_anything_is_kept() -> None:
    cache = KVCache()
    keep_one(cache, *tokens(1, 0))
    keys, values = tokens(1, 1)
    for wrong in ((keys[..., 1:], values), (keys[:, 1:], values), (keys, values[..., 1:])):
        with pytest.raises(ValueError, match="should"):
            keep_one(cache, *wrong)
        assert cache.offset == 1


@pytest.mark.parametrize("held", [False, True])
def test_steps_that_are_evaluated_ahead(held: bool) -> None:
    """Of a cache so large that a step waits for the one before it rather than copy what that still reads."""
    cache, other, found, kept = KVCache(), KVCache(), [], []
    for i in range(30):
        keys, values = drawn(1, 8, 1, 64, seed=i), drawn(1, 8, 1, 64, seed=100 + i)
        k, v, count = keep_one(cache, keys, values)
        found.append(mx.fast.scaled_dot_product_attention(keys, k[:, :, :count], v[:, :, :count], scale=1.0))
        mx.async_eval(found[-1], k, v)
        if held and i % 7 == 0:
            kept.append((k, count))
        truth = other.update_and_fetch(keys, values)
        found.append(mx.fast.scaled_dot_product_attention(keys, *truth, scale=1.0))
    assert all(mx.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(found[::2], found[1::2], strict=True))
    for k, count in kept:
        assert same(k[:, :, :count], other.keys[:, :, :count])
        assert not k[:, :, count:].any()
