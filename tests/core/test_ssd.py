"""The scan of Mamba-2 against a float64 recurrence, forward and backward."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest

from axon_core.ssd import ssd_scan

pytestmark = pytest.mark.usefixtures("pure")  # kernels add one token after the other: test_native.py

NAMES = ("x", "dt", "A", "B", "C", "D", "state")
HEADS, WIDTH, GROUPS, STATES = 4, 3, 2, 5


def draw(batch=2, length=40, low=1e-3, high=1e-1, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "x": rng.normal(size=(batch, length, HEADS, WIDTH)),
        "dt": np.exp(rng.uniform(np.log(low), np.log(high), (batch, length, HEADS))),
        "A": -np.exp(rng.normal(size=HEADS)),
        "B": rng.normal(size=(batch, length, GROUPS, STATES)),
        "C": rng.normal(size=(batch, length, GROUPS, STATES)),
        "D": rng.normal(size=HEADS),
        "state": rng.normal(size=(batch, HEADS, WIDTH, STATES)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def reference(x, dt, A, B, C, D, state):
    """One token after the other in float64: outputs, and the state before the first token and after every token."""
    x, dt, A, B, C, D, h = (np.asarray(a, np.float64) for a in (x, dt, A, B, C, D, state))
    B, C = (np.repeat(a, HEADS // GROUPS, axis=2) for a in (B, C))
    y, states = np.zeros_like(x), [h]
    for t in range(x.shape[1]):
        h = np.exp(dt[:, t] * A)[..., None, None] * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        states.append(h)
        y[:, t] = (h * C[:, t, :, None]).sum(-1) + D[:, None] * x[:, t]
    return y, states


def reference_gradient(values, gy, gh):
    """Gradients of `sum(gy * y) + sum(gh * last state)`, by the recurrence run backwards in float64."""
    x, dt, A, B, C, D, _ = (np.asarray(values[name], np.float64) for name in NAMES)
    _, states = reference(**values)
    B, C = (np.repeat(a, HEADS // GROUPS, axis=2) for a in (B, C))
    g = {"x": np.zeros_like(x), "dt": np.zeros_like(dt), "A": np.zeros_like(A), "B": np.zeros_like(B)}
    g["C"], g["D"] = np.zeros_like(C), (gy * x).sum((0, 1, 3))
    carry = gh.astype(np.float64)
    for t in reversed(range(x.shape[1])):
        carry = carry + gy[:, t, :, :, None] * C[:, t, :, None]
        g["C"][:, t] = (states[t + 1] * gy[:, t, :, :, None]).sum(2)
        decay = np.exp(dt[:, t] * A)[..., None, None]
        through = (carry * states[t] * decay).sum((2, 3))
        g["A"] += (through * dt[:, t]).sum(0)
        inner = (carry * B[:, t, :, None]).sum(-1)
        g["dt"][:, t] = through * A + (inner * x[:, t]).sum(-1)
        g["x"][:, t] = inner * dt[:, t, :, None] + D[:, None] * gy[:, t]
        g["B"][:, t] = (carry * (dt[:, t, :, None] * x[:, t])[..., None]).sum(2)
        carry = carry * decay
    for name in ("B", "C"):
        g[name] = g[name].reshape(*g[name].shape[:2], GROUPS, -1, STATES).sum(3)
    return g | {"state": carry}


def run(values, **options):
    y, state = ssd_scan(**{name: mx.array(value) for name, value in values.items()}, **options)
    return np.array(y), np.array(state)


def relative(found, expected):
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 65, 97, 300])
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
    values = draw(batch=1, length=2048, low=low, high=high)
    y, states = reference(**values)
    found, state = run(values)
    # With one and the same step, every decay of a head is rounded the same way, by up to 6e-8, and that adds up over
    # the thousands of tokens that a step of 1e-4 remembers.
    limit = 2e-5 if low == high else 2e-6
    assert relative(found, y) < limit
    assert relative(state, states[-1]) < limit


def test_a_huge_step_spoils_no_later_decay():
    """As a difference of running sums, every decay after the first token would be lost in rounding."""
    values = draw(length=32, low=1e-3, high=1e-2)
    values["dt"][:, 0] = 1e6
    y, states = reference(**values)
    found, state = run(values)
    assert relative(found[:, 1:], y[:, 1:]) < 1e-5
    np.testing.assert_allclose(found[:, 8:], y[:, 8:], rtol=0, atol=2e-6 * np.abs(y).max())
    assert relative(state, states[-1]) < 2e-6


@pytest.mark.parametrize("block", [1, 5, 16, 64, 1000])
def test_the_block_size_does_not_matter(block):
    values = draw(length=100)
    y, states = reference(**values)
    found, state = run(values, block=block)
    assert relative(found, y) < 1e-6
    assert relative(state, states[-1]) < 1e-6


@pytest.mark.parametrize("limit", [1, 8000])
def test_the_number_of_segments_does_not_matter(monkeypatch, limit):
    values = draw(length=100)
    y, states = reference(**values)
    monkeypatch.setattr("axon_core.specs._segments._BYTES", limit)
    found, state = run(values, block=8)
    assert relative(found, y) < 1e-6
    assert relative(state, states[-1]) < 1e-6


def test_a_block_of_nothing_is_refused():
    with pytest.raises(ValueError, match="block must be positive"):
        run(draw(), block=0)


def test_an_empty_sequence_leaves_the_state():
    values = draw(length=0)
    y, state = run(values)
    assert y.shape == (2, 0, HEADS, WIDTH)
    np.testing.assert_array_equal(state, values["state"])


def test_without_a_state_it_starts_from_zero_and_without_D_there_is_no_skip():
    values = draw(length=50)
    values["state"], values["D"] = np.zeros_like(values["state"]), np.zeros_like(values["D"])
    y, _ = reference(**values)
    del values["state"], values["D"]
    assert relative(run(values)[0], y) < 1e-6


def test_cut_anywhere_it_goes_on():
    values = draw(length=75)
    y, states = reference(**values)
    parts, state = [], values["state"]
    for start, stop in [(0, 1), (1, 2), (2, 40), (40, 41), (41, 75)]:
        part = {
            name: value[:, start:stop] if name in ("x", "dt", "B", "C") else value for name, value in values.items()
        }
        out, state = run(part | {"state": state})
        parts.append(out)
    assert relative(np.concatenate(parts, axis=1), y) < 1e-6
    assert relative(state, states[-1]) < 1e-6


@pytest.mark.parametrize("length", [1, 70])
@pytest.mark.parametrize("garbage", [5.0, np.nan, np.inf])
def test_padding_on_either_side_and_within_leaves_the_state_untouched(length, garbage):
    values, rng = draw(length=length), np.random.default_rng(7)
    mask = rng.random((2, length)) < 0.6
    mask[0] = False
    dirty = dict(values)
    for name in ("x", "dt", "B", "C"):
        dirty[name] = np.where(mask.reshape(*mask.shape, *[1] * (values[name].ndim - 2)), values[name], garbage)
    found, state = run(dirty, mask=mx.array(mask))
    for row in range(2):
        kept = mask[row]
        short = {
            name: value[row : row + 1][:, kept] if name in ("x", "dt", "B", "C") else value
            for name, value in values.items()
        }
        y, states = reference(**(short | {"state": values["state"][row : row + 1]}))
        assert relative(state[row], states[-1][0]) < 1e-6
        if kept.any():
            assert relative(found[row, kept], y[0]) < 1e-6


@pytest.mark.parametrize(
    ("length", "block", "low", "high"),
    [(1, 8, 1e-3, 0.1), (8, 8, 1e-3, 0.1), (40, 8, 1e-3, 0.1), (41, 32, 1e-4, 10), (64, 16, 20, 100)],
)
def test_gradient_equals_the_reverse_recurrence(monkeypatch, length, block, low, high):
    monkeypatch.setattr("axon_core.specs._segments._BYTES", 4 * 2 * HEADS * block**2 * 2)  # two blocks to a segment
    values = draw(length=length, low=low, high=high)
    rng = np.random.default_rng(3)
    gy, gh = rng.normal(size=values["x"].shape), rng.normal(size=values["state"].shape)
    wy, wh = mx.array(gy.astype(np.float32)), mx.array(gh.astype(np.float32))

    def loss(*arrays):
        y, state = ssd_scan(**dict(zip(NAMES, arrays, strict=True)), block=block)
        return (wy * y).sum() + (wh * state).sum()

    found = mx.grad(loss, argnums=tuple(range(len(NAMES))))(*(mx.array(values[name]) for name in NAMES))
    expected = reference_gradient(values, gy, gh)
    for name, gradient in zip(NAMES, found, strict=True):
        assert mx.isfinite(gradient).all(), name
        scale = max(np.abs(expected[name]).max(), 1e-6)  # the state's is zero where every decay underflows
        assert np.abs(np.array(gradient) - expected[name]).max() < 3e-6 * scale, name


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


def test_there_are_far_fewer_operations_than_tokens():
    y, state = ssd_scan(**{name: mx.array(value) for name, value in draw(batch=1, length=2048).items()})
    graph = io.StringIO()
    mx.export_to_dot(graph, y, state)
    assert graph.getvalue().count("[label") < 2048 / 4


def peak(length, function, values=None):
    values = values or draw(batch=1, length=length)
    arrays = [mx.array(values[name]) for name in NAMES]
    mx.eval(arrays)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(function(*arrays))
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("train", [False, True])
def test_memory_grows_with_the_sequence_only_by_inputs_and_outputs(monkeypatch, train):
    monkeypatch.setattr("axon_core.specs._segments._BYTES", 2**16)

    def function(*arrays):
        return ssd_scan(*arrays)

    if train:
        function = mx.grad(lambda *a: ssd_scan(*a)[0].sum(), argnums=tuple(range(5)))
    growth = peak(8192, function) - peak(2048, function)
    # The matrices of blocks alone, 32 numbers per token and head, would be ten times the inputs x.
    assert growth < (12 if train else 6) * 6144 * (HEADS * WIDTH + 2 * GROUPS * STATES + HEADS) * 4


def test_the_states_between_blocks_are_not_all_kept(monkeypatch):
    monkeypatch.setattr("axon_core.specs._segments._BYTES", 2**20)

    def wide(length):
        shapes = {"x": (1, length, 16, 4), "dt": (1, length, 16), "A": (16,), "B": (1, length, 1, 64)}
        shapes |= {"C": shapes["B"], "D": (16,), "state": (1, 16, 4, 64)}
        return {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}

    def function(*arrays):
        return ssd_scan(*arrays, block=2)

    growth = peak(2048, function, wide(2048)) - peak(512, function, wide(512))
    # One state for every block of two tokens would be ten times as much as the inputs.
    assert growth < 6 * 1536 * (16 * 4 + 2 * 64 + 16) * 4


def test_a_compiled_training_step_has_the_same_gradient():
    """mlx_lm compiles its training step; there the backward pass must stay apart from the forward one."""
    values = draw(length=70)
    arrays = [mx.array(values[name]) for name in NAMES]

    def loss(*inputs):
        y, state = ssd_scan(**dict(zip(NAMES, inputs, strict=True)))
        return y.square().sum() + state.sum()

    gradient = mx.grad(loss, argnums=tuple(range(len(NAMES))))
    for found, expected in zip(mx.compile(gradient)(*arrays), gradient(*arrays), strict=True):
        assert relative(found, np.array(expected)) < 2e-6


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_low_precision_in_gives_the_same_type_out_and_a_float32_state(dtype):
    values = {name: mx.array(value).astype(dtype) for name, value in draw().items()}
    y, states = reference(**{name: np.array(value.astype(mx.float32)) for name, value in values.items()})
    found, state = ssd_scan(**values)
    assert (found.dtype, state.dtype) == (dtype, mx.float32)
    assert relative(state, states[-1]) < 1e-6
    assert relative(found.astype(mx.float32), y) < (
        4e-3 if dtype == mx.bfloat16 else 5e-4
    )  # half a unit in the last place
