"""RWKV-7's recurrence in chunks against the same in float64, token by token, forward and backward."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.rwkv7 import _wkv7_step_ops

from axon_core.wkv7 import MIN_LOG_W, wkv7

NAMES = ("r", "log_w", "k", "v", "a", "b", "state")
SEQUENCES = NAMES[:6]
#: Where RWKV-7's decays end.
LEAST = -0.60653066


def draw(batch=2, length=40, heads=3, key_dim=8, value_dim=6, low=LEAST, high=0.0, seed=0):
    """Inputs as RWKV-7 makes them: b is minus a times rates from 0 to 1."""
    rng = np.random.default_rng(seed)
    shape = (batch, length, heads, key_dim)
    removed = rng.normal(size=shape)
    removed /= np.linalg.norm(removed, axis=-1, keepdims=True)
    values = {
        "r": rng.normal(size=shape),
        "log_w": rng.uniform(low, high, shape),
        "k": rng.normal(size=shape),
        "v": rng.normal(size=(*shape[:3], value_dim)),
        "a": -removed,
        "b": removed * rng.uniform(size=shape),
        "state": rng.normal(size=(batch, heads, value_dim, key_dim)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def reference(values):
    """One token after the other in float64: outputs and last state."""
    r, log_w, k, v, a, b, state = (np.asarray(values[name], np.float64) for name in NAMES)
    y = np.zeros_like(v)
    for t in range(v.shape[1]):
        # The formula of the paper, unchanged.
        transition = np.exp(log_w[:, t])[..., None] * np.eye(k.shape[-1]) + a[:, t, ..., None] * b[:, t, :, None, :]
        state = state @ transition + v[:, t, ..., None] * k[:, t, :, None, :]
        y[:, t] = (state @ r[:, t, ..., None])[..., 0]
    return y, state


def arrays(values):
    return [mx.array(values[name]) for name in NAMES]


def relative(found, expected):
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


def close(values, limit=1e-6, **options):
    y, state = reference(values)
    found, last = wkv7(*arrays(values), **options)
    assert found.shape == values["v"].shape
    assert relative(found, y) < limit
    assert relative(last, state) < limit


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 65, 129, 511, 512, 513, 1100])
def test_every_length_around_the_chunk_edges_equals_the_recurrence(length):
    close(draw(length=length))


@pytest.mark.parametrize("chunk", [1, 2, 4, 16, 32, 64])
@pytest.mark.parametrize("high", [0.0, LEAST])
def test_the_chunk_size_does_not_matter(chunk, high):
    close(draw(length=150, high=high), 3e-6, chunk=chunk)


@pytest.mark.parametrize("chunk", [0, -2, 3, 48])
def test_a_chunk_that_is_no_power_of_two_is_refused(chunk):
    with pytest.raises(ValueError, match="power of two"):
        wkv7(*arrays(draw()), chunk=chunk)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (-1e-6, 0), (LEAST, LEAST), (MIN_LOG_W, 0), (MIN_LOG_W, MIN_LOG_W)], ids=str
)
def test_decays_from_none_to_the_strongest(low, high):
    close(draw(batch=1, length=300, low=low, high=high), 3e-6)


@pytest.mark.parametrize("rate", [0.5, 0.999, 1.0])
@pytest.mark.parametrize("log_w", [0.0, -1e-3])
def test_one_key_repeated(rate, log_w):
    """The worst case of the triangular system: powers of its matrix are as large as binomials."""
    values = draw(length=300)
    values["a"][:] = values["a"][:, :1]
    values["b"], values["k"] = -rate * values["a"], -values["a"]
    values["log_w"][:] = log_w
    close(values, 5e-6, chunk=64)


def test_equals_the_steps_of_mlx_lm():
    r, log_w, k, v, a, b, state = arrays(draw(length=70, value_dim=8))
    y, last = wkv7(r, log_w, k, v, a, b, state)
    for t in range(70):
        expected, state = _wkv7_step_ops(r[:, t], mx.exp(log_w[:, t]), k[:, t], v[:, t], a[:, t], b[:, t], state)
        assert mx.abs(y[:, t] - expected[..., 0]).max() < 1e-5 * mx.abs(y).max()
    assert relative(last, np.array(state)) < 1e-5


def test_an_empty_sequence_leaves_the_state():
    values = draw(length=0)
    y, state = wkv7(*arrays(values))
    assert y.shape == (2, 0, 3, 6)
    np.testing.assert_array_equal(state, values["state"])


@pytest.mark.parametrize("length", [1, 50])
def test_without_a_state_it_starts_from_zero(length):
    values = draw(length=length)
    values["state"] = np.zeros_like(values["state"])
    y, state = reference(values)
    found, last = wkv7(*arrays(values)[:6])
    assert relative(found, y) < 1e-6
    assert relative(last, state) < 1e-6


def test_cut_anywhere_it_goes_on():
    values = draw(length=175)
    expected, last = reference(values)
    parts, state = [], mx.array(values["state"])
    for start, stop in [(0, 1), (1, 70), (70, 72), (72, 73), (73, 175)]:
        y, state = wkv7(*(mx.array(values[name][:, start:stop]) for name in SEQUENCES), state)
        parts.append(y)
    assert relative(mx.concatenate(parts, 1), expected) < 1e-6
    assert relative(state, last) < 1e-6


@pytest.mark.parametrize("length", [1, 90])
def test_padding_leaves_the_state_untouched_whatever_stands_there(length):
    values = draw(length=length)
    mask = np.random.default_rng(1).random((2, length)) < 0.6
    mask[1] = False
    dirty = {name: value.copy() for name, value in values.items()}
    for name in SEQUENCES:
        dirty[name][~mask] = np.nan
    y, state = wkv7(*arrays(dirty), mask=mx.array(mask))
    np.testing.assert_array_equal(state[1], values["state"][1])
    kept = {name: value[:1, mask[0]] if name in SEQUENCES else value[:1] for name, value in values.items()}
    expected, last = reference(kept)
    if mask[0].any():
        assert relative(np.array(y)[:1, mask[0]], expected) < 1e-6
    assert relative(state[:1], last) < 1e-6


def test_low_precision_in_is_low_precision_out_and_float32_inside():
    values = {name: mx.array(value).astype(mx.bfloat16) for name, value in draw(length=200).items()}
    y, state = wkv7(**values)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    exact, last = reference({name: np.array(value.astype(mx.float32)) for name, value in values.items()})
    assert relative(y.astype(mx.float32), exact) < 2**-8  # the rounding of the output
    assert relative(state, last) < 1e-6


def reference_gradient(values, gy, gs):
    """Gradients of `sum(gy * y) + sum(gs * last state)`, by the recurrence run backwards in float64."""
    r, log_w, k, v, a, b, state = (np.asarray(values[name], np.float64) for name in NAMES)
    states = [state]
    for t in range(v.shape[1]):
        until = {name: values[name][:, t : t + 1] for name in SEQUENCES} | {"state": states[-1]}
        states.append(reference(until)[1])
    g = {name: np.zeros(values[name].shape) for name in NAMES}
    carry = np.array(gs, np.float64)
    for t in reversed(range(v.shape[1])):
        before, w = states[t], np.exp(log_w[:, t])
        g["r"][:, t] = np.einsum("bhvk,bhv->bhk", states[t + 1], gy[:, t])
        carry = carry + gy[:, t, ..., None] * r[:, t, :, None, :]
        g["v"][:, t] = np.einsum("bhvk,bhk->bhv", carry, k[:, t])
        g["k"][:, t] = np.einsum("bhvk,bhv->bhk", carry, v[:, t])
        transition = before.swapaxes(-1, -2) @ carry  # of diag(w) + a b^T
        g["log_w"][:, t] = w * np.diagonal(transition, axis1=-2, axis2=-1)
        g["a"][:, t] = (transition @ b[:, t, ..., None])[..., 0]
        g["b"][:, t] = (a[:, t, :, None, :] @ transition)[..., 0, :]
        carry = carry * w[:, :, None] + (carry @ b[:, t, ..., None]) * a[:, t, :, None, :]
    return g | {"state": carry}


@pytest.mark.parametrize("low", [LEAST, -1e-3, MIN_LOG_W])
@pytest.mark.parametrize(("length", "chunk"), [(1, 32), (13, 32), (100, 32), (100, 64), (64, 16), (530, 32)])
def test_gradient_equals_the_reverse_recurrence(length, chunk, low):
    values = draw(length=length, low=low)
    rng = np.random.default_rng(3)
    gy, gs = rng.normal(size=values["v"].shape), rng.normal(size=values["state"].shape)
    wy, ws = mx.array(gy.astype(np.float32)), mx.array(gs.astype(np.float32))

    def loss(*inputs):
        y, state = wkv7(*inputs, chunk=chunk)
        return (wy * y).sum() + (ws * state).sum()

    found = mx.grad(loss, argnums=tuple(range(len(NAMES))))(*arrays(values))
    expected = reference_gradient(values, gy, gs)
    for name, gradient in zip(NAMES, found, strict=True):
        assert relative(gradient, expected[name]) < 3e-6, name


def test_the_reverse_recurrence_itself_agrees_with_finite_differences():
    values = {name: value.astype(np.float64) for name, value in draw(length=6).items()}
    rng = np.random.default_rng(3)
    gy, gs = rng.normal(size=values["v"].shape), rng.normal(size=values["state"].shape)
    gradient = reference_gradient(values, gy, gs)

    def loss(shifted):
        y, state = reference(shifted)
        return (gy * y).sum() + (gs * state).sum()

    for name in NAMES:
        direction = rng.normal(size=values[name].shape)
        up, down = (loss(values | {name: values[name] + step * direction}) for step in (1e-6, -1e-6))
        assert (up - down) / 2e-6 == pytest.approx((gradient[name] * direction).sum(), rel=1e-6)


def test_gradient_at_padding_is_zero_whatever_stands_there():
    values = draw(length=40)
    mask = np.random.default_rng(1).random((2, 40)) < 0.6
    for name in SEQUENCES:
        values[name][~mask] = np.nan
    weight = mx.array(mask)[..., None, None]

    def loss(*inputs):
        y, state = wkv7(*inputs, mask=mx.array(mask))
        return mx.where(weight, y, 0).sum() + state.sum()

    found = mx.grad(loss, argnums=tuple(range(6)))(*arrays(values))
    for name, gradient in zip(SEQUENCES, found, strict=True):
        gradient = np.array(gradient)
        assert np.isfinite(gradient).all(), name
        assert (gradient[~mask] == 0).all(), name
        assert (gradient[mask] != 0).any(), name


def test_a_compiled_training_step_has_the_same_gradient():
    """mlx_lm compiles its training step; there the backward pass must stay apart from the forward one."""
    inputs = arrays(draw(length=600))

    def loss(*inputs):
        y, state = wkv7(*inputs)
        return y.square().sum() + state.sum()

    gradient = mx.grad(loss, argnums=tuple(range(len(NAMES))))
    for found, expected in zip(mx.compile(gradient)(*inputs), gradient(*inputs), strict=True):
        assert relative(found, np.array(expected)) < 2e-6


def test_a_chunk_takes_fewer_operations_than_it_has_tokens():
    y, state = wkv7(*arrays(draw(batch=1, length=512)))
    graph = io.StringIO()
    mx.export_to_dot(graph, y, state)
    assert graph.getvalue().count("[label") < 512


def peak(length, function):
    inputs = arrays(draw(batch=1, length=length, key_dim=32, value_dim=32))
    mx.eval(inputs)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(function(*inputs))
    return mx.get_peak_memory() - before


def test_memory_grows_with_the_sequence_only_by_inputs_and_outputs():
    growth = peak(4096, wkv7) - peak(1024, wkv7)
    # Arrays of the size of v; a state for every token would be 32 of them.
    assert growth < 5 * 3072 * 3 * 32 * 4


def test_training_does_not_keep_the_states_of_every_token():
    gradient = mx.grad(lambda *a: wkv7(*a)[0].sum(), argnums=tuple(range(6)))
    growth = peak(4096, gradient) - peak(1024, gradient)
    # The inputs by chunks and their gradients; a backward pass through all chunks at once keeps over sixty.
    assert growth < 15 * 3072 * 3 * 32 * 4
