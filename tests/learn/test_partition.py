"""Likelihoods and log partition functions against float64 NumPy, for many logits and for a few."""

import mlx.core as mx
import numpy as np
import pytest

from axon_compose.learn import partition
from axon_compose.learn.divergence import compared, divergence
from axon_compose.learn.partition import likelihood, log_partition

pytestmark = pytest.mark.xdist_group("native")

#: A few logits, which MLX's own functions take; some blocks of rows, the last one smaller; rows longer than a block.
SHAPES = [(3, 7), (2, 25, 11_000), (2, partition._BLOCK + 3)]


@pytest.fixture(autouse=True, params=["MLX", "axon-native"])
def kernels(request, monkeypatch) -> None:
    """Without axon-native and with it, whatever is installed."""
    found = request.getfixturevalue("module") if request.param == "axon-native" else None
    monkeypatch.setattr(partition, "kernels", lambda: found)


@pytest.fixture(params=SHAPES, ids=str)
def logits(request) -> mx.array:
    drawn = np.random.default_rng(0).standard_normal(request.param) * 6
    drawn[..., 5] = -np.inf
    drawn[..., 2] += 90  # beside it most others vanish
    return mx.array(drawn, dtype=mx.float32)


def exact(logits: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """The log partition function and the softmax, in float64."""
    scores = np.array(logits).astype(np.float64)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1, keepdims=True)
    return (np.log(total) + scores.max(axis=-1, keepdims=True))[..., 0], weights / total


def wanted_of(logits: mx.array) -> mx.array:
    return mx.array(np.random.default_rng(1).integers(0, 5, logits.shape[:-1]), dtype=mx.int32)


def test_the_partition_function_and_its_gradient(logits: mx.array) -> None:
    expected, shares = exact(logits)
    factor = np.random.default_rng(2).standard_normal(expected.shape)
    np.testing.assert_allclose(np.array(log_partition(logits)), expected, rtol=3e-7)
    _, (slope,) = mx.vjp(log_partition, [logits], [mx.array(factor, dtype=mx.float32)])
    np.testing.assert_allclose(np.array(slope), shares * factor[..., None], rtol=0, atol=2e-6)


def test_likelihoods_and_their_gradient(logits: mx.array) -> None:
    expected, shares = exact(logits)
    wanted = wanted_of(logits)
    nll, z = likelihood(logits, wanted)
    score = np.take_along_axis(np.array(logits).astype(np.float64), np.array(wanted)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(np.array(nll), expected - score, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(np.array(z), expected, rtol=3e-7)
    first, second = np.random.default_rng(3).standard_normal((2, *expected.shape))
    cotangents = [mx.array(array, dtype=mx.float32) for array in (first, second)]
    _, (slope,) = mx.vjp(lambda logits: likelihood(logits, wanted), [logits], cotangents)
    hit = np.zeros(logits.shape)
    np.put_along_axis(hit, np.array(wanted)[..., None], 1.0, axis=-1)
    wanted_slope = shares * (first + second)[..., None] - hit * first[..., None]
    np.testing.assert_allclose(np.array(slope), wanted_slope, rtol=0, atol=2e-6)


@pytest.mark.parametrize("apart", [0.0, 1e-3, 0.5, 8.0])
@pytest.mark.parametrize("width", [40, 12_000])
def test_divergences_of_near_and_far_predictions(apart: float, width: int) -> None:
    """To a rounding of each term, of those that nearly vanish too."""
    rng = np.random.default_rng(0)
    theirs = mx.array(rng.standard_normal((2, width)) * 3, dtype=mx.float32)
    ours = theirs + mx.array(rng.standard_normal((2, width)) * apart, dtype=mx.float32)
    (p_log, p), (q_log, q) = (
        (np.array(scores).astype(np.float64) - exact(scores)[0][:, None], exact(scores)[1]) for scores in (theirs, ours)
    )
    np.testing.assert_allclose(np.array(divergence(theirs, ours)), (p * (p_log - q_log)).sum(-1), rtol=2e-4, atol=1e-12)
    # A change of all logits by one number is none, so the gradient is q - p. Roundings of logarithms: 4e-6.
    slope = mx.grad(lambda ours: divergence(theirs, ours).sum())(ours)
    np.testing.assert_allclose(np.array(slope), q - p, rtol=1e-5, atol=1e-6)
    slope = mx.grad(lambda theirs: divergence(theirs, ours).sum())(theirs)
    whole = (p * (p_log - q_log)).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.array(slope), p * (p_log - q_log - whole), rtol=1e-5, atol=1e-6 * (1 + whole.max()))


def test_partition_functions_of_a_comparison_have_gradients_of_their_own(logits: mx.array) -> None:
    """All three together, as a loss that has the likelihood beside the divergence needs them."""
    ours = mx.maximum(logits, -100)
    theirs = ours[..., ::-1]
    first, second, third = np.random.default_rng(4).standard_normal((3, *logits.shape[:-1]))
    (before, p), (now, q) = exact(theirs), exact(ours)
    cotangents = [mx.array(array, dtype=mx.float32) for array in (0 * first, second, third)]
    found, slopes = mx.vjp(lambda a, b: tuple(compared(a, b)), [theirs, ours], cotangents)
    np.testing.assert_allclose(np.array(found[1]), before, rtol=3e-7)
    np.testing.assert_allclose(np.array(found[2]), now, rtol=3e-7)
    np.testing.assert_allclose(np.array(slopes[0]), p * second[..., None], rtol=0, atol=3e-6)
    np.testing.assert_allclose(np.array(slopes[1]), q * third[..., None], rtol=0, atol=3e-6)
    cotangents[0] = mx.array(first, dtype=mx.float32)
    _, (_, both) = mx.vjp(lambda a, b: tuple(compared(a, b)), [theirs, ours], cotangents)
    expected = (q - p) * first[..., None] + q * third[..., None]
    np.testing.assert_allclose(np.array(both), expected, rtol=0, atol=3e-6)
