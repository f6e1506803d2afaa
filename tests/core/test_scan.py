"""The selective scan against a float64 recurrence, forward and backward."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest

from axon_core.scan import selective_scan

NAMES = ("x", "dt", "A", "B", "C", "D", "state")


def draw(batch=2, length=40, channels=5, states=3, low=1e-3, high=1e-1, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "x": rng.normal(size=(batch, length, channels)),
        "dt": np.exp(rng.uniform(np.log(low), np.log(high), (batch, length, channels))),
        "A": -np.exp(rng.normal(size=(channels, states))),
        "B": rng.normal(size=(batch, length, states)),
        "C": rng.normal(size=(batch, length, states)),
        "D": rng.normal(size=channels),
        "state": rng.normal(size=(batch, states, channels)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def reference(x, dt, A, B, C, D, state):
    """One token after the other in float64: outputs, and the state before the first token and after every token."""
    x, dt, A, B, C, D, h = (np.asarray(a, np.float64) for a in (x, dt, A, B, C, D, state))
    y, states = np.zeros_like(x), [h]
    for t in range(x.shape[1]):
        h = np.exp(dt[:, t, None] * A.T) * h + B[:, t, :, None] * (dt[:, t] * x[:, t])[:, None]
        states.append(h)
        y[:, t] = (C[:, t, :, None] * h).sum(1) + D * x[:, t]
    return y, states


def reference_gradient(values, gy, gh):
    """Gradients of `sum(gy * y) + sum(gh * last state)`, by the recurrence run backwards in float64."""
    x, dt, A, B, C, D, _ = (np.asarray(values[name], np.float64) for name in NAMES)
    _, states = reference(**values)
    g = {name: np.zeros(np.shape(values[name])) for name in NAMES}
    carry = gh.astype(np.float64)
    g["D"] = (gy * x).sum((0, 1))
    for t in reversed(range(x.shape[1])):
        h, before = states[t + 1], states[t]
        carry = carry + C[:, t, :, None] * gy[:, t, None]
        g["C"][:, t] = (h * gy[:, t, None]).sum(-1)
        decay = np.exp(dt[:, t, None] * A.T)
        through = carry * before * decay
        g["A"] += (through * dt[:, t, None]).sum(0).T
        inner = (carry * B[:, t, :, None]).sum(1)
        g["dt"][:, t] = (through * A.T).sum(1) + inner * x[:, t]
        g["x"][:, t] = inner * dt[:, t] + D * gy[:, t]
        g["B"][:, t] = (carry * (dt[:, t] * x[:, t])[:, None]).sum(-1)
        carry = carry * decay
    g["state"] = carry
    return g


def run(values, **options):
    y, state = selective_scan(**{name: mx.array(value) for name, value in values.items()}, **options)
    return np.array(y), np.array(state)


def relative(found, expected):
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 31, 32, 33, 64, 127, 128, 129, 300])
def test_every_length_around_the_block_edges_equals_the_recurrence(length):
    values = draw(length=length)
    y, states = reference(**values)
    found, state = run(values)
    assert found.shape == values["x"].shape
    assert relative(found, y) < 1e-6
    assert relative(state, states[-1]) < 1e-6


@pytest.mark.parametrize(
    ("low", "high"), [(1e-4, 1e-4), (1e-4, 1e-3), (1e-3, 1e-1), (1e-4, 100), (100, 100)], ids=lambda v: f"{v:g}"
)
def test_extreme_steps_over_a_long_sequence(low, high):
    values = draw(batch=1, length=4096, low=low, high=high)
    y, states = reference(**values)
    found, state = run(values)
    # With one and the same step, every decay of a channel is rounded the same way, by up to 6e-8, and that adds up over
    # the thousands of tokens that a step of 1e-4 remembers.
    limit = 2e-5 if low == high else 2e-6
    assert relative(found, y) < limit
    assert relative(state, states[-1]) < limit


@pytest.mark.parametrize("chunk", [1, 5, 8, 16, 64, 100, 1000])
def test_the_chunk_size_does_not_matter(chunk):
    values = draw(length=100)
    y, states = reference(**values)
    found, state = run(values, chunk=chunk)
    assert relative(found, y) < 1e-6
    assert relative(state, states[-1]) < 1e-6


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk must be positive"):
        run(draw(), chunk=0)


def test_an_empty_sequence_leaves_the_state():
    values = draw(length=0)
    y, state = run(values)
    assert y.shape == (2, 0, 5)
    np.testing.assert_array_equal(state, values["state"])


def test_without_a_state_it_starts_from_zero_and_without_D_there_is_no_skip():
    values = draw(length=50)
    values["state"] = np.zeros_like(values["state"])
    values["D"] = np.zeros_like(values["D"])
    y, _ = reference(**values)
    del values["state"], values["D"]
    assert relative(run(values)[0], y) < 1e-6


def test_cut_anywhere_it_goes_on():
    values = draw(length=75)
    whole, last = run(values)
    parts, state = [], values["state"]
    for start, stop in [(0, 1), (1, 34), (34, 35), (35, 75)]:
        part = {
            name: value[:, start:stop] if name in ("x", "dt", "B", "C") else value for name, value in values.items()
        }
        y, state = run(part | {"state": state})
        parts.append(y)
    assert relative(np.concatenate(parts, 1), whole) < 1e-6
    assert relative(state, last) < 1e-6


@pytest.mark.parametrize("length", [1, 40])
def test_padding_leaves_the_state_untouched_whatever_stands_there(length):
    values = draw(length=length)
    mask = np.random.default_rng(1).random((2, length)) < 0.6
    mask[1] = False
    dirty = {name: value.copy() for name, value in values.items()}
    for name in ("x", "dt", "B"):
        dirty[name][~mask] = np.nan
    y, state = run(dirty, mask=mx.array(mask))
    np.testing.assert_array_equal(state[1], values["state"][1])

    kept = {
        name: value[:1, mask[0]] if name in ("x", "dt", "B", "C") else value[:1] if name == "state" else value
        for name, value in values.items()
    }
    expected, states = reference(**kept)
    if mask[0].any():
        assert relative(y[:1, mask[0]], expected) < 1e-6
    assert relative(state[:1], states[-1]) < 1e-6


def test_low_precision_in_is_low_precision_out_and_float32_inside():
    values = draw(length=200)
    low = {name: mx.array(value).astype(mx.bfloat16) for name, value in values.items()}
    y, state = selective_scan(**low)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    exact, states = reference(**{name: np.array(value.astype(mx.float32)) for name, value in low.items()})
    assert relative(y.astype(mx.float32), exact) < 2**-8  # the rounding of the output
    # dt * x is rounded in bfloat16 only if someone forgets to widen it first.
    assert relative(state, states[-1]) < 1e-6


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1e-1), (1e-4, 100)], ids=lambda v: f"{v:g}")
@pytest.mark.parametrize(("length", "chunk"), [(1, None), (13, None), (150, None), (150, 20)])
def test_gradient_equals_the_reverse_recurrence(length, chunk, low, high):
    values = draw(length=length, low=low, high=high)
    rng = np.random.default_rng(3)
    gy, gh = rng.normal(size=values["x"].shape), rng.normal(size=values["state"].shape)
    wy, wh = mx.array(gy.astype(np.float32)), mx.array(gh.astype(np.float32))

    def loss(*arrays):
        y, state = selective_scan(**dict(zip(NAMES, arrays, strict=True)), chunk=chunk)
        return (wy * y).sum() + (wh * state).sum()

    found = mx.grad(loss, argnums=tuple(range(len(NAMES))))(*(mx.array(values[name]) for name in NAMES))
    expected = reference_gradient(values, gy, gh)
    for name, gradient in zip(NAMES, found, strict=True):
        assert relative(gradient, expected[name]) < 2e-6, name


def test_the_reverse_recurrence_itself_agrees_with_finite_differences():
    values = {name: value.astype(np.float64) for name, value in draw(length=6).items()}
    rng = np.random.default_rng(3)
    gy, gh = rng.normal(size=values["x"].shape), rng.normal(size=values["state"].shape)
    gradient = reference_gradient(values, gy, gh)

    def loss(shifted):
        y, states = reference(**shifted)
        return (gy * y).sum() + (gh * states[-1]).sum()

    for name in NAMES:
        direction = rng.normal(size=values[name].shape)
        up, down = (loss(values | {name: values[name] + step * direction}) for step in (1e-6, -1e-6))
        assert (up - down) / 2e-6 == pytest.approx((gradient[name] * direction).sum(), rel=1e-6)


def test_gradient_is_finite_where_decays_underflow():
    values = draw(length=64, low=50, high=100)
    arrays = [mx.array(values[name]) for name in NAMES]
    found = mx.grad(lambda *a: selective_scan(*a)[0].sum(), argnums=tuple(range(6)))(*arrays)
    assert all(mx.isfinite(g).all() for g in found)


def test_a_chunk_takes_fewer_operations_than_it_has_tokens():
    y, state = selective_scan(**{name: mx.array(value) for name, value in draw(batch=1, length=256).items()})
    graph = io.StringIO()
    mx.export_to_dot(graph, y, state)
    assert graph.getvalue().count("[label") < 256


def peak(length, function):
    values = draw(batch=1, length=length, channels=64, states=16)
    arrays = [mx.array(values[name]) for name in NAMES]
    mx.eval(arrays)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(function(*arrays))
    return mx.get_peak_memory() - before


def test_memory_grows_with_the_sequence_only_by_inputs_and_outputs():
    def forward(*arrays):
        return selective_scan(*arrays, chunk=64)

    growth = peak(4096, forward) - peak(1024, forward)
    # Twelve arrays of the size of x; a state for every token would be sixteen times as much each.
    assert growth < 12 * 3072 * 64 * 4


def test_training_does_not_keep_the_states_of_every_token():
    gradient = mx.grad(lambda *a: selective_scan(*a, chunk=64)[0].sum(), argnums=(0, 1, 2, 3, 4))
    growth = peak(4096, gradient) - peak(1024, gradient)
    # Without recomputation the backward pass keeps about six of these.
    assert growth < 2 * 3072 * 64 * 16 * 4


def test_a_compiled_training_step_has_the_same_gradient():
    """mlx_lm compiles its training step; there the backward pass must stay apart from the forward one."""
    values = draw(length=70)
    arrays = [mx.array(values[name]) for name in NAMES]

    def loss(*inputs):
        y, state = selective_scan(**dict(zip(NAMES, inputs, strict=True)), chunk=32)
        return y.square().sum() + state.sum()

    gradient = mx.grad(loss, argnums=tuple(range(len(NAMES))))
    for found, expected in zip(mx.compile(gradient)(*arrays), gradient(*arrays), strict=True):
        assert relative(found, np.array(expected)) < 2e-6
