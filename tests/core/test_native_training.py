"""Passes over many numbers by `axon-native` and their gradients, as training takes them, against float64 in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_core.kernels import (
    GATES,
    native_activated,
    native_causal_attention,
    native_convolution,
    native_gated,
    native_norm,
    native_rotation,
)
from axon_core.rope import RoPE
from axon_core.scores import causal_attention
from axon_core.specs._rope import RopeOptions

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

Numbers = np.ndarray[Any, np.dtype[np.float64]]

#: What float32 may lose of the largest number.
LOST = 2e-6


def drawn(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape), dtype=mx.float32)


def exact(x: mx.array) -> Numbers:
    return np.array(x).astype(np.float64)


def agree(found: list[mx.array], truths: list[Numbers]) -> None:
    for one, truth in zip(found, truths, strict=True):
        assert one.shape == truth.shape
        assert np.abs(exact(one) - truth).max() <= LOST * np.abs(truth).max()


def with_gradients(call: Callable[..., Any], arrays: list[mx.array], slope: mx.array) -> list[mx.array]:
    """The output, and the gradients of all arrays where that of the output is `slope`."""
    (y,), gradients = mx.vjp(call, arrays, [slope])
    return [y, *gradients]


def attention(
    q: Numbers, k: Numbers, v: Numbers, dy: Numbers, scale: float, window: int | None
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The output, and the gradients of queries, keys and values."""
    batch, heads, length, _ = q.shape
    groups, total = k.shape[1:3]
    k, v = (np.repeat(each, heads // groups, axis=1) for each in (k, v))
    query, key = np.arange(total - length, total)[:, None], np.arange(total)
    seen = (key <= query) & (key > query - (window or total))
    scores = np.where(seen, scale * q @ k.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    towards = dy @ v.swapaxes(-1, -2)
    slopes = weights * (towards - (weights * towards).sum(axis=-1, keepdims=True))

    def summed(each: Numbers) -> Numbers:
        return each.reshape(batch, groups, heads // groups, total, -1).sum(axis=2)

    dk, dv = summed(scale * slopes.swapaxes(-1, -2) @ q), summed(weights.swapaxes(-1, -2) @ dy)
    return weights @ v, scale * slopes @ k, dk, dv


@pytest.mark.parametrize(
    ("heads", "groups", "length", "total", "width", "wide", "window"),
    [
        (4, 2, 100, 130, 24, 40, None),  # more than one block of queries, keys of earlier tokens
        (2, 1, 50, 50, 64, 64, 7),
        (3, 3, 150, 150, 16, 5, 64),
        (2, 2, 33, 33, 3, 1, None),
        (2, 1, 32, 32, 8, 8, 1),  # each token sees itself alone
    ],
)
def test_causal_attention(
    heads: int, groups: int, length: int, total: int, width: int, wide: int, window: int | None
) -> None:
    q = drawn(2, length, heads, width).swapaxes(1, 2)
    k, v = drawn(2, groups, total, width, seed=1), drawn(2, total, groups, wide, seed=2).swapaxes(1, 2)
    dy = drawn(2, heads, length, wide, seed=3)
    found = with_gradients(lambda *each: native_causal_attention(*each, 0.3, window), [q, k, v], dy)
    agree(found, list(attention(*map(exact, (q, k, v, dy)), 0.3, window)))


def test_attention_to_scores_whose_exponentials_overflow() -> None:
    q, k, v = 100 * drawn(1, 1, 40, 8), drawn(1, 1, 40, 8, seed=1), drawn(1, 1, 40, 8, seed=2)
    dy = drawn(1, 1, 40, 8, seed=3)
    found = with_gradients(lambda *each: native_causal_attention(*each, 1.0, None), [q, k, v], dy)
    truths = attention(*map(exact, (q, k, v, dy)), 1.0, None)
    for one, truth in zip(found, truths, strict=True):  # scores of 500 are known to 3e-5
        assert np.abs(exact(one) - truth).max() <= 1e-4 * np.abs(truth).max()


def test_derivatives_of_attention_in_other_directions_are_those_of_the_reference(pure_attention: Any) -> None:
    """Forwards, of the gradient, and of several at once."""
    arrays = [drawn(1, 2, 40, 8), drawn(1, 1, 40, 8, seed=1), drawn(1, 1, 40, 4, seed=2)]
    moved = [drawn(*each.shape, seed=5) for each in arrays]

    def native(*each: mx.array) -> mx.array:
        return native_causal_attention(*each, 0.3, 9)

    def goal(call: Any) -> Any:
        return lambda *each: (mx.grad(lambda q, k, v: call(q, k, v).square().sum())(*each) * moved[0]).sum()

    for ours, theirs in (
        (mx.jvp(native, arrays, moved)[1], mx.jvp(pure_attention, arrays, moved)[1]),
        (mx.grad(goal(native), (0, 1, 2))(*arrays), mx.grad(goal(pure_attention), (0, 1, 2))(*arrays)),
        ([mx.vmap(native)(*(each[None] for each in arrays))[0]], [pure_attention(*arrays)]),
    ):
        agree(list(ours), [exact(each) for each in theirs])


@pytest.fixture
def pure_attention() -> Any:
    def call(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        at = mx.arange(q.shape[2])
        seen = (at <= at[:, None]) & (at > at[:, None] - 9)
        scores = mx.where(seen, 0.3 * q @ k.swapaxes(-1, -2), -mx.inf)
        return mx.softmax(scores, axis=-1) @ v

    return call


@pytest.mark.parametrize("more", [{"softcap": 5.0}, {"sinks": mx.zeros(2)}, {"slopes": mx.ones(2)}])
def test_attention_with_more_in_its_scores_is_left_to_mlx(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "axon_core.scores.native_causal_attention", lambda *_: pytest.fail("it knows of no such scores")
    )
    q = drawn(1, 2, 40, 8)
    causal_attention(q, q, q, None, scale=1.0, **more)
    causal_attention(q, q, q, mx.ones((40, 40), mx.bool_), scale=1.0)
    causal_attention(q, q, q, None, scale=1.0, left_padding=mx.array([3]))


def test_attention_of_few_queries_other_types_and_packed_keys_is_left_to_mlx() -> None:
    q = drawn(1, 2, 40, 8)
    assert native_causal_attention(q[:, :, :31], q, q, 1.0, None) is None
    assert native_causal_attention(q.astype(mx.bfloat16), q, q, 1.0, None) is None
    assert native_causal_attention(q, q, q.astype(mx.bfloat16), 1.0, None) is None
    assert native_causal_attention(q, (q, q, q), (q, q, q), 1.0, None) is None


@pytest.mark.parametrize("shape", [(3, 50, 19), (1000, 40)])
def test_a_norm(shape: tuple[int, ...]) -> None:
    x, weight, dy = drawn(*shape), drawn(shape[-1], seed=1), drawn(*shape, seed=2)
    found = with_gradients(lambda *each: native_norm(*each, 1e-3), [x, weight], dy)
    wide, w, slope = map(exact, (x, weight, dy))
    scale = 1 / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-3)
    towards = (slope * w * wide).mean(axis=-1, keepdims=True)
    dx = scale * (slope * w - wide * scale**2 * towards)
    agree(found, [wide * scale * w, dx, (slope * wide * scale).reshape(-1, shape[-1]).sum(axis=0)])


def activation(name: str, x: Numbers) -> tuple[Numbers, Numbers]:
    """It and its derivative."""
    inner, slope = {
        "silu": lambda: (x, np.ones_like(x)),
        "gelu_quick": lambda: (1.702 * x, np.full_like(x, 1.702)),
        "gelu_tanh": lambda: (
            2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3),
            2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2),
        ),
    }[name]()
    share = 1 / (1 + np.exp(-inner))
    return x * share, share + x * share * (1 - share) * slope


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("width", [3, 67])
def test_a_gate_and_an_activation(width: int, name: str) -> None:
    gate, x, dy = 4 * drawn(300, width), drawn(300, width, seed=1), drawn(300, width, seed=2)
    y, slope = activation(name, exact(gate))
    found = with_gradients(lambda *each: native_gated(name, *each), [gate, x], dy)
    agree(found, [y * exact(x), exact(dy) * exact(x) * slope, exact(dy) * y])
    agree(with_gradients(lambda g: native_activated(name, g), [gate], dy), [y, exact(dy) * slope])


@pytest.mark.parametrize("traditional", [False, True])
def test_a_rotation(traditional: bool) -> None:
    """Back by the same angles: of queries whose heads are neighbours in memory, with dimensions that stay."""
    rope = RoPE(20, RopeOptions(fraction=0.6, traditional=traditional))
    x, dy = drawn(2, 50, 3, 20).swapaxes(1, 2), drawn(2, 3, 50, 20, seed=1)
    y, dx = with_gradients(rope, [x], dy)
    first, second = rope._layout.members
    angles = np.arange(50)[:, None] / np.array(rope._layout.periods)

    def turned(wide: Numbers, sign: int) -> Numbers:
        found = wide.copy()
        found[..., first] = wide[..., first] * np.cos(angles) - sign * wide[..., second] * np.sin(angles)
        found[..., second] = wide[..., second] * np.cos(angles) + sign * wide[..., first] * np.sin(angles)
        return found

    for found, truth in ((y, turned(exact(x), 1)), (dx, turned(exact(dy), -1))):
        assert np.abs(exact(found) - truth).max() <= 2e-5  # angles of 50 in float32


def test_gradients_of_angles_are_those_of_mlx() -> None:
    x, cosines, sines = drawn(2, 3, 40, 6), drawn(40, 6, seed=1), drawn(40, 6, seed=2)
    dy = drawn(2, 3, 40, 6, seed=3)
    others = [1, 0, 3, 2, 4, 5]
    call = lambda *each: native_rotation(*each, 2, traditional=True)  # noqa: E731
    _, dx, dc, ds = with_gradients(call, [x, cosines, sines], dy)
    wide, c, s, slope = map(exact, (x, cosines, sines, dy))
    truths = [slope * c + (slope * s)[..., others], (slope * wide).sum((0, 1)), (slope * wide[..., others]).sum((0, 1))]
    agree([dx, dc, ds], truths)


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_convolution(dilation: int, shifted: bool) -> None:
    length, channels, taps = 150, 11, 4
    before = (taps - 1) * dilation
    x = drawn(2, length, 2 * channels)[..., channels:]
    arrays = [x, drawn(2, before, channels, seed=1), drawn(channels, taps, seed=2), drawn(channels, seed=3)]
    arrays = arrays if shifted else arrays[:3]
    dy = drawn(2, length, channels, seed=4)

    def call(x: mx.array, state: mx.array, weight: mx.array, bias: mx.array | None = None) -> Any:
        return native_convolution(x, state, weight, bias, dilation)

    window, w, slope = np.concatenate([exact(arrays[1]), exact(x)], axis=1), exact(arrays[2]), exact(dy)
    y = np.zeros_like(slope) + (exact(arrays[3]) if shifted else 0)
    d_window, dw = np.zeros_like(window), np.zeros_like(w)
    for k in range(taps):
        met = slice(k * dilation, k * dilation + length)
        y += window[:, met] * w[:, k]
        d_window[:, met] += slope * w[:, k]
        dw[:, k] = (slope * window[:, met]).sum(axis=(0, 1))
    truths = [y, d_window[:, before:], d_window[:, :before], dw, *[slope.sum(axis=(0, 1))] * shifted]
    agree(with_gradients(call, arrays, dy), truths)


def test_a_convolution_of_a_few_tokens() -> None:
    """Fewer than there are taps: some inputs of the state have no gradient."""
    x, state, weight = drawn(1, 2, 3), drawn(1, 5, 3, seed=1), drawn(3, 6, seed=2)
    found = with_gradients(lambda *each: native_convolution(*each, None, 1), [x, state, weight], mx.ones((1, 2, 3)))
    w = exact(weight)
    agree([found[2]], [np.stack([w[:, 0], w[:, 0] + w[:, 1], *[w[:, k] + w[:, k - 1] for k in (2, 3, 4)]])[None]])


def test_likelihoods(module: Any) -> None:
    logits, wanted = 9 * drawn(40, 3, 101), mx.array(np.random.default_rng(1).integers(0, 101, (40, 3)), mx.int32)
    towards, slope = drawn(40, 3, seed=2), drawn(40, 3, seed=3)
    (nll, partition), (d,) = mx.vjp(lambda x: module.likelihood(x, wanted), [logits], [towards, slope])
    wide, at = exact(logits), np.array(wanted)[..., None]
    truth = np.log(np.exp(wide).sum(axis=-1))
    shares = np.exp(wide - truth[..., None]) * (exact(towards) + exact(slope))[..., None]
    picked = np.take_along_axis(wide, at, axis=-1)[..., 0]
    np.put_along_axis(shares, at, np.take_along_axis(shares, at, axis=-1) - exact(towards)[..., None], axis=-1)
    agree([nll, partition, d], [truth - picked, truth, shares])


def test_a_token_that_is_not_in_the_vocabulary_has_no_likelihood(module: Any) -> None:
    nll, partition = module.likelihood(mx.zeros((3, 4)), mx.array([-1, 2, 4], mx.int32))
    assert mx.isnan(nll).tolist() == [True, False, True]
    assert not mx.isnan(partition).any()


def test_what_does_not_fit_is_refused(module: Any) -> None:
    x = mx.zeros((1, 2, 4, 4))
    for call in (
        lambda: module.causal_attention(x, x[..., :3], x, 1.0),
        lambda: module.causal_attention(x, x[:, :, :3], x[:, :, :3], 1.0),
        lambda: module.causal_attention(x, x, x, 1.0, 0),
        lambda: module.causal_attention(x[:, :, :0], x, x, 1.0),
        lambda: module.activated(x, "relu"),
        lambda: module.causal_convolution(x[0], x[0, :, :2], mx.zeros((4, 4)), None),
        lambda: module.causal_convolution(x[0], x[0, :, :3], mx.zeros((4, 4)), mx.zeros(3)),
        lambda: module.causal_convolution(x[0], x[0, :, :3], mx.zeros((4, 4)), None, 0),
        lambda: module.likelihood(x, mx.zeros((1, 2, 3), mx.int32)),
        lambda: module.likelihood(x, mx.zeros((1, 2, 4), mx.int64)),
    ):
        with pytest.raises(ValueError, match="should"):
            call()
