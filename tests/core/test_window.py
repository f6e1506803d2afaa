"""Attention within a window, block by block, against the plain definition in float64."""

import attention_reference as reference
import mlx.core as mx
import numpy as np
import pytest

from axon_core.window import BLOCK, banded_attention

WINDOWS = [1, 2, 7, 8, 9, 64, 65, 200]


def attend(queries, keys, values, mask):
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask)


def tensors(length, history=0, batch=1, heads=2, groups=1, dtype=mx.float32, seed=0):
    keys = mx.random.split(mx.random.key(seed), 3)
    shapes = ((batch, heads, length, 8), (batch, groups, history + length, 8), (batch, groups, history + length, 8))
    return tuple(mx.random.normal(s, key=k).astype(dtype) for s, k in zip(shapes, keys, strict=True))


def expected(q, k, v, window, first=None):
    q, k, v = (np.array(a.astype(mx.float32), dtype=np.float64) for a in (q, k, v))
    first = first or [0] * len(q)
    return np.stack([reference.softmax_attention(*row, 0.3, window, f) for *row, f in zip(q, k, v, first, strict=True)])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("length", "history"), [(1, 0), (1, 70), (64, 0), (63, 7), (130, 0), (65, 100)])
def test_equals_the_definition(window, length, history):
    q, k, v = tensors(length, history)
    got = banded_attention(q, k, v, attend, window)
    np.testing.assert_allclose(np.array(got), expected(q, k, v, window), atol=2e-6)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_heads(groups):
    q, k, v = tensors(70, 5, heads=4, groups=groups)
    got = banded_attention(q, k, v, attend, 9)
    np.testing.assert_allclose(np.array(got), expected(q, k, v, 9), atol=2e-6)


def attend_strictly(queries, keys, values, mask):
    """As some backends do it: a query that sees nothing is not a number."""
    scores = mx.where(mask, 0.3 * queries @ keys.swapaxes(-1, -2), -mx.inf)
    return mx.softmax(scores, axis=-1) @ values


@pytest.mark.parametrize("attend", [attend, attend_strictly])
@pytest.mark.parametrize("window", [1, 7, 64, 200, None])
def test_left_padding_hides_keys_and_keeps_padded_queries_finite(window, attend):
    first = [0, 3, 66, 80]
    q, k, v = tensors(80, 5, batch=4)
    got = np.array(banded_attention(q, k, v, attend, window, mx.array(first)))
    assert np.isfinite(got).all()
    want = expected(q, k, v, window, first)
    for row, start in enumerate(first):
        real = max(0, start - 5)
        np.testing.assert_allclose(got[row, :, real:], want[row, :, real:], atol=2e-6)


def test_negative_padding_is_no_padding():
    """A full ring reports the padding that it has dropped as a negative number."""
    q, k, v = tensors(70, batch=2)
    got = banded_attention(q, k, v, attend, 9, mx.array([-3, 0]))
    np.testing.assert_allclose(np.array(got), expected(q, k, v, 9), atol=2e-6)


def test_bfloat16_stays_bfloat16():
    q, k, v = tensors(130, dtype=mx.bfloat16)
    got = banded_attention(q, k, v, attend, 9)
    assert got.dtype == mx.bfloat16
    # bfloat16 has 8 bits: inputs are exact here, the result and the probabilities are rounded to 2^-8.
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), expected(q, k, v, 9), atol=2e-2)


def test_gradients_equal_those_of_a_full_mask():
    q, k, v = tensors(100, 30, heads=2)
    at = mx.arange(30, 130)[:, None]
    mask = (mx.arange(130) <= at) & (mx.arange(130) > at - 20)
    weights = mx.random.normal((1, 2, 100, 8), key=mx.random.key(9))

    banded = mx.grad(lambda *a: (banded_attention(*a, attend, 20) * weights).sum(), argnums=(0, 1, 2))(q, k, v)
    dense = mx.grad(lambda *a: (attend(*a, mask) * weights).sum(), argnums=(0, 1, 2))(q, k, v)
    for one, other in zip(banded, dense, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=5e-6)
        assert np.abs(np.array(other)).max() > 1e-3


def test_works_inside_compile():
    q, k, v = tensors(2 * BLOCK + 3)
    plain = banded_attention(q, k, v, attend, 9)
    compiled = mx.compile(lambda *a: banded_attention(*a, attend, 9))(q, k, v)
    np.testing.assert_allclose(np.array(compiled), np.array(plain), atol=1e-6)


def test_memory_is_a_few_times_the_output():
    """A mask over 4096 x 4096 alone has 16 MiB. Blocks one after another take 3 times the output, all at once 7."""
    q, k, v = tensors(4096, heads=4)
    mx.eval(q, k, v)
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(banded_attention(q, k, v, attend, 64))
    assert mx.get_peak_memory() - before < 4.5 * q.nbytes
