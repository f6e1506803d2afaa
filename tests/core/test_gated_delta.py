"""The gated delta rule against a float64 recurrence, forward and backward."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest
from delta_reference import NAMES, SEQUENCES, arrays, close, draw, reference, reference_gradient, relative, run
from mlx_lm.models.gated_delta import gated_delta_ops

from axon_core.gated_delta import gated_delta_rule


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1100])
def test_every_length_around_the_chunk_edges_equals_the_recurrence(length):
    close(draw(length=length))


@pytest.mark.parametrize("chunk", [1, 2, 4, 16, 32, 64, 128, 1024])
def test_the_chunk_size_does_not_matter(chunk):
    close(draw(length=150), chunk=chunk)


@pytest.mark.parametrize(("key_heads", "heads"), [(1, 1), (1, 3), (2, 2), (2, 6)])
def test_neighbouring_value_heads_share_a_key(key_heads, heads):
    close(draw(length=70, key_heads=key_heads, heads=heads))


@pytest.mark.parametrize("chunk", [0, -2, 3, 48])
def test_a_chunk_that_is_no_power_of_two_is_refused(chunk):
    with pytest.raises(ValueError, match="power of two"):
        run(draw(), chunk=chunk)


@pytest.mark.parametrize("chunk", [32, 64, 128])
@pytest.mark.parametrize("beta", [0.5, 0.999, 1.0])
@pytest.mark.parametrize("log_g", [0.0, -1e-7, -1e-3])
def test_one_key_repeated(beta, log_g, chunk):
    """The worst case of the triangular system: powers of its matrix are as large as binomials."""
    values = draw(length=300)
    values["k"][:] = values["k"][:, :1]
    values["beta"][:], values["log_g"][:] = beta, log_g
    # Rounding adds up over 300 tokens that nearly nothing forgets; a step per token does no better.
    close(values, 5e-6, chunk=chunk)


@pytest.mark.parametrize("beta", [1.6, 1.9, 2.0])
def test_one_key_written_beyond_its_error(beta):
    """Transitions with an eigenvalue down to -1, which keep every rounding: it grows with the tokens, not faster."""
    values = draw(length=300)
    values["k"][:] = values["k"][:, :1]
    values["beta"][:], values["log_g"][:] = beta, 0.0
    close(values, 5e-5)
    values = draw(length=300)
    values["beta"][:], values["log_g"][:] = beta, 0.0
    close(values, 1e-5)


def test_keys_that_almost_repeat_and_are_written_in_full():
    values = draw(length=300)
    k = values["k"][:, :1] + 1e-3 * values["k"]
    values["k"] = k / np.linalg.norm(k, axis=-1, keepdims=True)
    values["beta"][:], values["log_g"][:] = 1.0, -1e-6
    # Differences of 1e-3 between keys are stored to 6e-8 of the keys, and that is what the state then consists of.
    close(values, 1e-4)


@pytest.mark.parametrize(("low", "high"), [(-18, -16), (-8, -6), (-4, 9.3), (9, 9.3)], ids=lambda v: f"{v:g}")
def test_gates_from_almost_one_to_nothing(low, high):
    close(draw(batch=1, length=1000, low=low, high=high), 3e-6)


def test_a_closed_gate_does_not_blur_the_gates_after_it():
    """Differences of running sums would: behind 1e4, a float32 sum knows 0.01 to a tenth only."""
    values = draw(length=64, low=-7, high=-5)
    values["log_g"][:, [3, 40]] = -1e4
    close(values)


def test_a_gate_of_minus_infinity_forgets_everything():
    values = draw(length=50)
    values["log_g"][:, 20] = -np.inf
    y, state = run(values)
    rest = {name: value[:, 20:] if name in SEQUENCES else 0 * value for name, value in values.items()}
    rest["log_g"][:, 0] = 0
    expected, states = reference(rest)
    assert relative(y[:, 20:], expected) < 1e-6
    assert relative(state, states[-1]) < 1e-6


def test_equals_mlx_lm():
    q, k, v, log_g, beta, state = arrays(draw(length=100))
    y, last = gated_delta_rule(q, k, v, log_g, beta, state)
    expected, expected_last = gated_delta_ops(q, k, v, mx.exp(log_g), beta, state)
    assert relative(y, np.array(expected, np.float64)) < 1e-6
    assert relative(last, np.array(expected_last, np.float64)) < 1e-6


def test_an_empty_sequence_leaves_the_state():
    values = draw(length=0)
    y, state = run(values)
    assert y.shape == (2, 0, 4, 6)
    np.testing.assert_array_equal(state, values["state"])


@pytest.mark.parametrize("length", [1, 50])
def test_without_a_state_it_starts_from_zero(length):
    values = draw(length=length)
    values["state"] = np.zeros_like(values["state"])
    y, states = reference(values)
    found, state = gated_delta_rule(*arrays(values)[:5])
    assert relative(found, y) < 1e-6
    assert relative(state, states[-1]) < 1e-6


def test_cut_anywhere_it_goes_on():
    values = draw(length=175)
    expected, states = reference(values)
    parts, state = [], values["state"]
    for start, stop in [(0, 1), (1, 70), (70, 72), (72, 73), (73, 175)]:
        part = {name: value[:, start:stop] for name, value in values.items() if name in SEQUENCES}
        y, state = run(part | {"state": state})
        parts.append(y)
    assert relative(np.concatenate(parts, 1), expected) < 1e-6
    assert relative(state, states[-1]) < 1e-6


@pytest.mark.parametrize("length", [1, 90])
def test_padding_leaves_the_state_untouched_whatever_stands_there(length):
    values = draw(length=length)
    mask = np.random.default_rng(1).random((2, length)) < 0.6
    mask[1] = False
    dirty = {name: value.copy() for name, value in values.items()}
    for name in SEQUENCES:
        dirty[name][~mask] = np.nan
    y, state = run(dirty, mask=mx.array(mask))
    np.testing.assert_array_equal(state[1], values["state"][1])
    kept = {name: value[:1, mask[0]] if name in SEQUENCES else value[:1] for name, value in values.items()}
    expected, states = reference(kept)
    if mask[0].any():
        assert relative(y[:1, mask[0]], expected) < 1e-6
    assert relative(state[:1], states[-1]) < 1e-6


def test_low_precision_in_is_low_precision_out_and_float32_inside():
    values = {name: mx.array(value).astype(mx.bfloat16) for name, value in draw(length=200).items()}
    y, state = gated_delta_rule(**values)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    exact, states = reference({name: np.array(value.astype(mx.float32)) for name, value in values.items()})
    assert relative(y.astype(mx.float32), exact) < 2**-8  # the rounding of the output
    assert relative(state, states[-1]) < 1e-6


@pytest.mark.parametrize(("low", "high"), [(-4, 1), (-18, -16), (-4, 9.3)], ids=lambda v: f"{v:g}")
@pytest.mark.parametrize(("length", "chunk"), [(1, None), (13, None), (100, None), (100, 64), (64, 16), (530, None)])
def test_gradient_equals_the_reverse_recurrence(length, chunk, low, high):
    values = draw(length=length, low=low, high=high)
    rng = np.random.default_rng(3)
    gy, gs = rng.normal(size=values["v"].shape), rng.normal(size=values["state"].shape)
    wy, ws = mx.array(gy.astype(np.float32)), mx.array(gs.astype(np.float32))

    def loss(*inputs):
        y, state = gated_delta_rule(*inputs, chunk=chunk)
        return (wy * y).sum() + (ws * state).sum()

    found = mx.grad(loss, argnums=tuple(range(len(NAMES))))(*arrays(values))
    expected = reference_gradient(values, gy, gs)
    for name, gradient in zip(NAMES, found, strict=True):
        assert relative(gradient, expected[name]) < 2e-6, name


def test_the_reverse_recurrence_itself_agrees_with_finite_differences():
    values = {name: value.astype(np.float64) for name, value in draw(length=6).items()}
    rng = np.random.default_rng(3)
    gy, gs = rng.normal(size=values["v"].shape), rng.normal(size=values["state"].shape)
    gradient = reference_gradient(values, gy, gs)

    def loss(shifted):
        y, states = reference(shifted)
        return (gy * y).sum() + (gs * states[-1]).sum()

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
        y, state = gated_delta_rule(*inputs, mask=mx.array(mask))
        return mx.where(weight, y, 0).sum() + state.sum()

    found = mx.grad(loss, argnums=tuple(range(5)))(*arrays(values))
    for name, gradient in zip(SEQUENCES, found, strict=True):
        gradient = np.array(gradient)
        assert np.isfinite(gradient).all(), name
        assert (gradient[~mask] == 0).all(), name
        assert (gradient[mask] != 0).any(), name


def test_a_compiled_training_step_has_the_same_gradient():
    """mlx_lm compiles its training step; there the backward pass must stay apart from the forward one."""
    inputs = arrays(draw(length=600))

    def loss(*inputs):
        y, state = gated_delta_rule(*inputs)
        return y.square().sum() + state.sum()

    gradient = mx.grad(loss, argnums=tuple(range(len(NAMES))))
    for found, expected in zip(mx.compile(gradient)(*inputs), gradient(*inputs), strict=True):
        assert relative(found, np.array(expected)) < 2e-6


def test_a_chunk_takes_fewer_operations_than_it_has_tokens():
    y, state = gated_delta_rule(*arrays(draw(batch=1, length=512)), chunk=64)
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
    growth = peak(4096, gated_delta_rule) - peak(1024, gated_delta_rule)
    # Four arrays of the size of v; a state for every token would be 32 times as much.
    assert growth < 4 * 3072 * 4 * 32 * 4


def test_training_does_not_keep_the_states_of_every_token():
    gradient = mx.grad(lambda *a: gated_delta_rule(*a)[0].sum(), argnums=tuple(range(5)))
    growth = peak(4096, gradient) - peak(1024, gradient)
    # Six arrays of the size of v; a backward pass through all chunks at once keeps over a hundred.
    assert growth < 6 * 3072 * 4 * 32 * 4
