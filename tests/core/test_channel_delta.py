"""The gated delta rule with a decay for every channel, against a float64 recurrence, forward and backward."""

from __future__ import annotations

import io
from functools import partial

import delta_reference
import mlx.core as mx
import numpy as np
import pytest
from delta_reference import NAMES, SEQUENCES, arrays, close, reference, reference_gradient, relative, run
from mlx_lm.models.gated_delta import gated_delta_ops

from axon_core.gated_delta import gated_delta_rule

draw = partial(delta_reference.draw, channels=True)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 31, 32, 33, 64, 65, 129, 513, 1100])
def test_every_length_around_the_chunk_edges_equals_the_recurrence(length):
    close(draw(length=length))


@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 16, 32, 64, 128])
def test_the_chunk_size_does_not_matter(chunk):
    close(draw(length=150), chunk=chunk)


@pytest.mark.parametrize(("key_heads", "heads"), [(1, 1), (1, 3), (2, 2), (2, 6)])
def test_neighbouring_value_heads_share_a_key(key_heads, heads):
    close(draw(length=70, key_heads=key_heads, heads=heads))


def test_one_decay_for_all_channels_is_the_rule_with_one_decay():
    values = draw(length=100)
    values["log_g"][:] = values["log_g"][..., :1]
    found = run(values)
    expected = run(values | {"log_g": values["log_g"][..., 0]})
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 1e-6


@pytest.mark.parametrize("chunk", [32, 128])
@pytest.mark.parametrize("beta", [0.5, 1.0])
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


@pytest.mark.parametrize("chunk", [16, 32, 128])
@pytest.mark.parametrize(("low", "high"), [(-18, -16), (-8, -6), (-4, 9.3), (1, 4), (9, 9.3)], ids=lambda v: f"{v:g}")
def test_gates_from_almost_one_to_nothing(low, high, chunk):
    """Up to exp(-10000), for each channel by itself."""
    close(draw(batch=1, length=1000, low=low, high=high), 3e-6, chunk=chunk)


def test_channels_that_are_closed_do_not_blur_those_beside_and_behind_them():
    """Over a decay, 1 / exp(-1e4) would be infinite; as a difference of sums, 0.01 behind 1e4 is known to a tenth."""
    values = draw(length=64, low=-7, high=-5)
    values["log_g"][:, [3, 40], :, ::2] = -1e4
    values["log_g"][:, [17, 18], :, 1::2] = -90.0
    close(values)


@pytest.mark.parametrize("token", [0, 15, 16, 20, 31, 32, 49])
def test_a_gate_of_minus_infinity_forgets_everything(token):
    values = draw(length=50)
    values["log_g"][:, token] = -np.inf
    y, state = run(values)
    rest = {name: value[:, token:] if name in SEQUENCES else 0 * value for name, value in values.items()}
    rest["log_g"][:, 0] = 0
    expected, states = reference(rest)
    assert relative(y[:, token:], expected) < 1e-6
    assert relative(state, states[-1]) < 1e-6


def test_equals_mlx_lm():
    q, k, v, log_g, beta, state = arrays(draw(length=100))
    y, last = gated_delta_rule(q, k, v, log_g, beta, state)
    expected, expected_last = gated_delta_ops(q, k, v, mx.exp(log_g), beta, state)
    assert relative(y, np.array(expected, np.float64)) < 1e-6
    assert relative(last, np.array(expected_last, np.float64)) < 1e-6


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
@pytest.mark.parametrize(("length", "chunk"), [(1, None), (13, None), (100, 64), (64, 16), (530, None)])
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


def test_gradients_of_closed_channels_are_numbers():
    values = draw(length=64, low=-7, high=-5)
    values["log_g"][:, [3, 40], :, ::2] = -1e4
    values["log_g"][:, 20] = -np.inf
    found = mx.grad(lambda *a: gated_delta_rule(*a)[0].sum(), argnums=tuple(range(len(NAMES))))(*arrays(values))
    for name, gradient in zip(NAMES, found, strict=True):
        assert mx.isfinite(gradient).all(), name


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
    y, state = gated_delta_rule(*arrays(draw(batch=1, length=2048)), chunk=64)
    graph = io.StringIO()
    mx.export_to_dot(graph, y, state)
    assert graph.getvalue().count("[label") < 2048


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
    # Five arrays of the size of v; a state for every token would be 32 times as much.
    assert growth < 5 * 3072 * 4 * 32 * 4


def test_training_does_not_keep_the_states_of_every_token():
    gradient = mx.grad(lambda *a: gated_delta_rule(*a)[0].sum(), argnums=tuple(range(5)))
    growth = peak(4096, gradient) - peak(1024, gradient)
    # Eight arrays of the size of v; a backward pass through all chunks at once keeps over a hundred.
    assert growth < 8 * 3072 * 4 * 32 * 4
