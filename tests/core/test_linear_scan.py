"""The plain linear recurrence against a float64 loop, forward and backward."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.recurrent_gemma import rnn_scan

from axon_core.linear_scan import linear_scan

pytestmark = pytest.mark.usefixtures("pure")  # kernels add one token after the other: test_native.py

NAMES = ("x", "log_a", "state")
CHANNELS = 5


def draw(batch=2, length=40, channels=CHANNELS, low=-6.0, high=1.0, seed=0):
    """Decays are exp(-exp(u)), u from `low` to `high`."""
    rng = np.random.default_rng(seed)
    values = {
        "x": rng.normal(size=(batch, length, channels)),
        "log_a": -np.exp(rng.uniform(low, high, (batch, length, channels))),
        "state": rng.normal(size=(batch, channels)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def reference(values):
    """One token after the other in float64: the state after every token."""
    x, log_a, h = (np.asarray(values[name], np.float64) for name in NAMES)
    y = np.zeros_like(x)
    for t in range(x.shape[1]):
        h = np.exp(log_a[:, t]) * h + x[:, t]
        y[:, t] = h
    return y, h


def reference_gradient(values, gy, gs):
    """Gradients of `sum(gy * y) + sum(gs * last state)` in float64."""
    _, log_a, state = (np.asarray(values[name], np.float64) for name in NAMES)
    y, _ = reference(values)
    g = {"x": np.zeros_like(log_a), "log_a": np.zeros_like(log_a)}
    carry = np.array(gs, np.float64)
    for t in reversed(range(y.shape[1])):
        carry = carry + gy[:, t]
        g["x"][:, t] = carry
        carry = np.exp(log_a[:, t]) * carry
        g["log_a"][:, t] = carry * (y[:, t - 1] if t else state)
    return g | {"state": carry}


def arrays(values):
    return [mx.array(values[name]) for name in NAMES]


def relative(found, expected):
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


def close(values, limit=1e-6, **options):
    y, last = reference(values)
    found, state = linear_scan(*arrays(values), **options)
    assert found.shape == values["x"].shape
    assert relative(found, y) < limit
    assert relative(state, last) < limit


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 32, 33, 255, 256, 257, 600])
def test_every_length_around_the_edges_of_blocks_and_chunks_equals_the_recurrence(length):
    close(draw(length=length))


@pytest.mark.parametrize("chunk", [1, 3, 16, 17, 64, 1000])
def test_the_chunk_size_does_not_matter(chunk):
    close(draw(length=100), chunk=chunk)


def test_a_wide_state_takes_shorter_chunks():
    close(draw(batch=1, length=70, channels=40000))


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk must be positive"):
        linear_scan(*arrays(draw()), chunk=0)


@pytest.mark.parametrize(("low", "high"), [(-18, -16), (-8, -6), (-4, 9.3), (9, 9.3)], ids=lambda v: f"{v:g}")
def test_decays_from_almost_one_to_nothing(low, high):
    close(draw(batch=1, length=2000, low=low, high=high), 3e-6)


def test_a_closed_gate_does_not_blur_the_gates_after_it():
    values = draw(length=64, low=-7, high=-5)
    values["log_a"][:, [3, 40]] = -1e4
    values["log_a"][:, 20, ::2] = -np.inf
    close(values)


def test_equals_mlx_lm():
    values = draw(length=50)
    x, log_a, state = arrays(values)
    y, last = linear_scan(x, log_a, state)
    expected, expected_last = rnn_scan(x, mx.exp(log_a), state)
    assert relative(y, np.array(expected, np.float64)) < 1e-6
    assert relative(last, np.array(expected_last, np.float64)) < 1e-6


def test_an_empty_sequence_leaves_the_state():
    values = draw(length=0)
    y, state = linear_scan(*arrays(values))
    assert y.shape == (2, 0, CHANNELS)
    np.testing.assert_array_equal(np.array(state), values["state"])


@pytest.mark.parametrize("length", [1, 50])
def test_without_a_state_it_starts_from_zero(length):
    values = draw(length=length)
    values["state"] = np.zeros_like(values["state"])
    found, state = linear_scan(*arrays(values)[:2])
    y, last = reference(values)
    assert relative(found, y) < 1e-6
    assert relative(state, last) < 1e-6


def test_cut_anywhere_it_goes_on():
    values = draw(length=75)
    expected, last = reference(values)
    x, log_a, state = arrays(values)
    parts = []
    for start, stop in [(0, 1), (1, 2), (2, 40), (40, 41), (41, 75)]:
        y, state = linear_scan(x[:, start:stop], log_a[:, start:stop], state)
        parts.append(y)
    assert relative(mx.concatenate(parts, axis=1), expected) < 1e-6
    assert relative(state, last) < 1e-6


@pytest.mark.parametrize("length", [1, 70])
@pytest.mark.parametrize("garbage", [5.0, np.nan, np.inf])
def test_padding_leaves_the_state_untouched_whatever_stands_there(length, garbage):
    values = draw(length=length)
    mask = np.random.default_rng(7).random((2, length)) < 0.6
    mask[0] = False
    dirty = values | {name: np.where(mask[..., None], values[name], garbage) for name in ("x", "log_a")}
    y, state = linear_scan(*arrays(dirty), mask=mx.array(mask))
    np.testing.assert_array_equal(np.array(state[0]), values["state"][0])
    kept = {name: values[name][1:, mask[1]] for name in ("x", "log_a")} | {"state": values["state"][1:]}
    expected, last = reference(kept)
    assert relative(state[1:], last) < 1e-6
    if mask[1].any():
        assert relative(np.array(y)[1:, mask[1]], expected) < 1e-6


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_low_precision_in_gives_the_same_type_out_and_a_float32_state(dtype):
    values = {name: mx.array(value).astype(dtype) for name, value in draw(length=100).items()}
    y, last = reference({name: np.array(value.astype(mx.float32)) for name, value in values.items()})
    found, state = linear_scan(**values)
    assert (found.dtype, state.dtype) == (dtype, mx.float32)
    assert relative(state, last) < 1e-6
    assert relative(found.astype(mx.float32), y) < (4e-3 if dtype == mx.bfloat16 else 5e-4)


@pytest.mark.parametrize(("low", "high"), [(-6, 1), (-18, -16), (-4, 9.3)], ids=lambda v: f"{v:g}")
@pytest.mark.parametrize(("length", "chunk"), [(1, None), (2, None), (41, 16), (64, 64), (530, None)])
def test_gradient_equals_the_reverse_recurrence(length, chunk, low, high):
    values = draw(length=length, low=low, high=high)
    rng = np.random.default_rng(3)
    gy, gs = rng.normal(size=values["x"].shape), rng.normal(size=values["state"].shape)
    wy, ws = mx.array(gy.astype(np.float32)), mx.array(gs.astype(np.float32))

    def loss(*inputs):
        y, state = linear_scan(*inputs, chunk=chunk)
        return (wy * y).sum() + (ws * state).sum()

    found = mx.grad(loss, argnums=(0, 1, 2))(*arrays(values))
    for name, gradient in zip(NAMES, found, strict=True):
        expected = reference_gradient(values, gy, gs)[name]
        # The gradient of the state is nothing where every decay underflows.
        assert np.abs(np.array(gradient) - expected).max() < 2e-6 * max(np.abs(expected).max(), 1e-6), name


def test_the_reverse_recurrence_itself_agrees_with_finite_differences():
    values = {name: value.astype(np.float64) for name, value in draw(length=6).items()}
    rng = np.random.default_rng(3)
    gy, gs = rng.normal(size=values["x"].shape), rng.normal(size=values["state"].shape)
    gradient = reference_gradient(values, gy, gs)

    def loss(shifted):
        y, last = reference(shifted)
        return (gy * y).sum() + (gs * last).sum()

    for name in NAMES:
        direction = rng.normal(size=values[name].shape)
        up, down = (loss(values | {name: values[name] + step * direction}) for step in (1e-6, -1e-6))
        assert (up - down) / 2e-6 == pytest.approx((gradient[name] * direction).sum(), rel=1e-6)


def test_gradient_at_padding_is_zero_whatever_stands_there():
    values = draw(length=40)
    mask = np.random.default_rng(1).random((2, 40)) < 0.6
    for name in ("x", "log_a"):
        values[name][~mask] = np.nan

    def loss(*inputs):
        y, state = linear_scan(*inputs, mask=mx.array(mask))
        return mx.where(mx.array(mask)[..., None], y, 0).sum() + state.sum()

    for gradient in mx.grad(loss, argnums=(0, 1))(*arrays(values)):
        gradient = np.array(gradient)
        assert np.isfinite(gradient).all()
        assert (gradient[~mask] == 0).all()
        assert (gradient[mask] != 0).any()


def test_a_compiled_training_step_has_the_same_gradient():
    inputs = arrays(draw(length=600))

    def loss(*inputs):
        y, state = linear_scan(*inputs)
        return y.square().sum() + state.sum()

    gradient = mx.grad(loss, argnums=(0, 1, 2))
    for found, expected in zip(mx.compile(gradient)(*inputs), gradient(*inputs), strict=True):
        assert relative(found, np.array(expected)) < 2e-6


def test_there_are_fewer_operations_than_tokens():
    y, state = linear_scan(*arrays(draw(batch=1, length=2048)))
    graph = io.StringIO()
    mx.export_to_dot(graph, y, state)
    assert graph.getvalue().count("[label") < 2048


def peak(length, function):
    inputs = arrays(draw(batch=1, length=length, channels=512))
    mx.eval(inputs)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(function(*inputs))
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("train", [False, True])
def test_memory_grows_with_the_sequence_only_by_inputs_and_outputs(train):
    function = mx.grad(lambda *a: linear_scan(*a)[0].sum(), argnums=(0, 1, 2)) if train else linear_scan
    growth = peak(8192, function) - peak(2048, function)
    # Arrays of the size of the input; what the steps of a chunk make would be several more.
    assert growth < (10 if train else 4) * 6144 * 512 * 4
