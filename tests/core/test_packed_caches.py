"""Attention to quantised keys, values and latents against float64, in every type and over many tokens."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_core.latent_forms import absorbed
from axon_core.relative import Relative
from axon_core.scores import attend

TOKENS = 3000
ROUNDING = {mx.float32: 2e-5, mx.float16: 4e-3, mx.bfloat16: 2e-2}
types = pytest.mark.parametrize("dtype", ROUNDING, ids=str)


def drawn(seed: int, *shape: int, mean: float = 0.0) -> mx.array:
    return mx.random.normal(shape, loc=mean, key=mx.random.key(seed))


def exact(packed: Any, bits: int) -> np.ndarray:
    codes, scales, biases = (each if each.dtype == mx.uint32 else each.astype(mx.float32) for each in packed)
    return np.array(mx.dequantize(codes, scales, biases, 64, bits)).astype(np.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


@types
@pytest.mark.parametrize(
    "added", [{}, {"softcap": 5.0}, {"sinks": mx.array([0.5, 1.0])}, {"mask": "causal"}], ids=lambda each: "".join(each)
)
@pytest.mark.parametrize("value_dim", [64, 128])
def test_attention_to_many_tokens(dtype: mx.Dtype, added: dict[str, Any], value_dim: int) -> None:
    """Scores close to each other, so that each of the tokens adds a little to the mean of their values."""
    queries = (0.1 * drawn(0, 1, 2, 2, 64)).astype(dtype)
    keys = mx.quantize(drawn(1, 1, 1, TOKENS, 64).astype(dtype), 64, 8)
    values = mx.quantize(drawn(2, 1, 1, TOKENS, value_dim, mean=2.0).astype(dtype), 64, 8)
    got = attend(queries, keys, values, **{"mask": None, "scale": 0.125} | added)
    assert got.dtype == dtype
    scores = 0.125 * np.array(queries.astype(mx.float32), np.float64) @ exact(keys, 8).swapaxes(-1, -2)
    if cap := added.get("softcap"):
        scores = cap * np.tanh(scores / cap)
    if "mask" in added:
        scores[..., 0, -1] = -np.inf
    if "sinks" in added:
        sinks = np.broadcast_to(np.array(added["sinks"])[None, :, None, None], (*scores.shape[:3], 1))
        weights = softmax(np.concatenate([scores, sinks], axis=-1))[..., :-1]
    else:
        weights = softmax(scores)
    want = weights @ exact(values, 8)
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), want, rtol=0, atol=2.5 * ROUNDING[dtype])


@types
def test_scores_by_distance_go_along(dtype: mx.Dtype) -> None:
    queries, mixtures = (drawn(seed, 1, 2, 2, width).astype(dtype) for seed, width in ((0, 64), (3, 4)))
    keys, values = (mx.quantize(drawn(seed, 1, 1, 40, 64).astype(dtype), 64, 8) for seed in (1, 2))
    profiles = drawn(4, 4, 30)
    given = mx.concatenate([queries, mixtures], axis=-1)
    got = attend(given, keys, values, "causal", scale=0.125, relative=Relative(profiles))
    assert got.dtype == dtype
    scores = 0.125 * np.array(queries.astype(mx.float32), np.float64) @ exact(keys, 8).swapaxes(-1, -2)
    by_distance = np.array(mixtures.astype(mx.float32), np.float64) @ np.array(profiles, np.float64)
    for query, key in np.ndindex(2, 40):
        back = 38 + query - key
        scores[..., query, key] += by_distance[..., query, back] if 0 <= back < 30 else 0 if back >= 0 else -np.inf
    want = softmax(scores) @ exact(values, 8)
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), want, rtol=0, atol=2.5 * ROUNDING[dtype])


@types
def test_attention_to_many_latents(dtype: mx.Dtype) -> None:
    queries, turned = ((0.01 * drawn(seed, 1, 3, 2, 64)).astype(dtype) for seed in (0, 1))
    latents, positions = (mx.quantize(drawn(s, 1, 1, TOKENS, 64, mean=2.0).astype(dtype), 64, 8) for s in (2, 3))
    got = absorbed(queries, turned, latents, positions, None, None)
    assert got.dtype == dtype
    parts = ((queries, latents), (turned, positions))
    scores = sum(np.array(q.astype(mx.float32), np.float64) @ exact(k, 8).swapaxes(-1, -2) for q, k in parts)
    want = softmax(np.asarray(scores)) @ exact(latents, 8)
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), want, rtol=0, atol=2.5 * ROUNDING[dtype])
