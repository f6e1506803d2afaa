"""A layer of a selective state space over one token in one operation, against float64 NumPy and MLX's derivatives."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from stored_layers import ROUNDING, STORED, drawn, layer, normalised, rounded, step_by_step, times, typed

from axon_core.kernels import Selective, StoredNorm, native_selective

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

WIDTH = 64
types = pytest.mark.parametrize("dtype", ROUNDING, ids=str)


def wide(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def made(
    channels: int, states: int, rank: int, taps: int, *, name: str = "float32", shifts: bool = True, **more: Any
) -> Selective:
    """A layer; only what groups of numbers divide is quantised."""

    def of(rows: int, width: int, shift: bool, seed: int) -> Any:
        return layer(rows, width, name if width % 32 == 0 else "float32", shift, seed)

    return Selective(
        (
            of(2 * channels, WIDTH, shifts, 1),
            of(rank + 2 * states, channels, False, 3),
            of(channels, rank, True, 5),
            of(WIDTH, channels, shifts, 7),
        ),
        (drawn(channels, taps, 1, seed=9) / 2, drawn(channels, seed=10) if shifts else None),
        drawn(channels, states, seed=11),
        drawn(channels, seed=12),
        **more,
    )


def advanced(
    x: np.ndarray, conv: np.ndarray, state: np.ndarray, layer: Selective, norm: StoredNorm | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, kept inputs and state, in float64."""
    into, of_u, of_step, out = layer.projections
    E, N = layer.A_log.shape
    u, z = np.split(times(normalised(x, norm), into), 2, axis=-1)
    window = np.concatenate([conv, u], axis=1)
    u = (window * wide(layer.taps[0])[..., 0].T).sum(axis=1, keepdims=True)
    u = silu(u if layer.taps[1] is None else u + wide(layer.taps[1]))
    numbers = times(u, of_u)
    rank = numbers.shape[-1] - 2 * N
    cuts = [rank, rank + N] if layer.step_first else [N, 2 * N]
    parts = np.split(numbers, cuts, axis=-1)
    r, B, C = parts if layer.step_first else (parts[2], *parts[:2])
    r, B, C = (normalised(each, own) for each, own in zip((r, B, C), layer.norms, strict=True))
    dt = np.clip(np.logaddexp(times(r, of_step), 0.0), *layer.steps)
    A = -np.exp(wide(layer.A_log)).T
    state = np.exp(dt * A) * state + B.swapaxes(1, 2) * (dt * u)
    y = (C @ state + wide(layer.D) * u) * silu(z)
    assert state.shape == (len(x), N, E)
    return times(y, out), window[:, 1:], state


def retyped(layer: Selective, dtype: mx.Dtype) -> Selective:
    taps, shift = layer.taps
    return layer._replace(
        projections=tuple(typed(each, dtype) for each in layer.projections),
        taps=(taps.astype(dtype), None if shift is None else shift.astype(dtype)),
        A_log=layer.A_log.astype(dtype),
        D=layer.D.astype(dtype),
    )


LEARNED = lambda width, seed, offset=0.0: (drawn(width, seed=seed) / 4 + 1, 1e-3, offset)  # noqa: E731
LAYERS: dict[str, Selective] = {
    "plain": made(96, 16, 4, 4),
    "channels that no vector divides": made(37, 5, 3, 4, shifts=False),
    "fewer channels than a vector has": made(3, 1, 1, 2),
    "a convolution of one token": made(40, 4, 2, 1),
    "Mamba": made(96, 16, 4, 4, step_first=True),
    "Falcon Mamba": made(96, 16, 4, 4, step_first=True, norms=((None, 1e-6, 0.0),) * 3),
    "Jamba": made(50, 7, 5, 4, step_first=True, norms=(LEARNED(5, 20), LEARNED(7, 21, 1.0), LEARNED(7, 22))),
    "norms behind the states": made(50, 7, 5, 4, norms=(LEARNED(5, 20), None, LEARNED(7, 22))),
    "clipped steps": made(40, 4, 2, 4, steps=(0.5, 0.75)),
    "a step of its own": made(40, 4, 2, 4, steps=(0.25, 0.25)),
}


@types
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("batch", "adds"), [(1, False), (4, True)])
def test_layers(name: str, dtype: mx.Dtype, batch: int, adds: bool) -> None:
    """Three tokens one after the other, each of the states that came out of the one before."""
    layer = retyped(LAYERS[name], dtype)
    E, N = layer.A_log.shape
    conv = drawn(E, layer.taps[0].shape[1] - 1, batch, seed=30).T.astype(dtype)  # in another order in memory
    state = drawn(batch, E, N, seed=31).swapaxes(1, 2)
    norm = (drawn(WIDTH, seed=32) / 8, 1e-4, 1.0) if adds else None
    for token in range(3):
        x = drawn(batch, 1, WIDTH, seed=40 + token).astype(dtype)
        y, conv_truth, state_truth = advanced(wide(x), wide(conv), wide(state), layer, norm)
        found = native_selective(x, conv, state, layer, norm, adds=adds)
        assert found is not None
        assert rounded(found[0], wide(x) + y if adds else y, dtype)
        assert conv.size == 0 or rounded(found[1], conv_truth, dtype)
        assert rounded(found[2], state_truth, mx.float32)
        conv, state = found[1:]


@pytest.mark.parametrize("how", STORED)
def test_stored_projections(how: str) -> None:
    layer = made(96, 16, 32, 4, name=how)
    x, conv, state = drawn(2, 1, WIDTH), drawn(2, 3, 96, seed=1), drawn(2, 16, 96, seed=2)
    found, truth = native_selective(x, conv, state, layer), advanced(wide(x), wide(conv), wide(state), layer, None)
    assert found is not None
    assert all(rounded(*pair, mx.float32) for pair in zip(found, truth, strict=True))


@pytest.mark.parametrize("by", [-60.0, -8.0, 6.0, 60.0])
def test_states_that_hardly_change_and_such_that_are_forgotten_at_once(by: float) -> None:
    """Decays of all sizes, by their logarithm."""
    layer = made(40, 4, 2, 4)._replace(A_log=drawn(40, 4, seed=3) + by)
    x, conv, state = drawn(2, 1, WIDTH), drawn(2, 3, 40, seed=1), drawn(2, 4, 40, seed=2)
    found, truth = native_selective(x, conv, state, layer), advanced(wide(x), wide(conv), wide(state), layer, None)
    assert found is not None
    assert all(rounded(*pair, mx.float32) for pair in zip(found, truth, strict=True))


@pytest.mark.parametrize("by", [-90.0, -20.0, 20.0, 90.0, 1e4])
def test_steps_of_all_sizes(by: float) -> None:
    """Where softplus is an exponential, and where it is its argument."""
    layer = made(40, 4, 2, 4)
    weight, *none, added, group, bits, mode = layer.projections[2]
    projections = (*layer.projections[:2], (weight, *none, added + by, group, bits, mode), layer.projections[3])
    layer = layer._replace(projections=projections)
    x, conv, state = drawn(2, 1, WIDTH), drawn(2, 3, 40, seed=1), drawn(2, 4, 40, seed=2)
    found, truth = native_selective(x, conv, state, layer), advanced(wide(x), wide(conv), wide(state), layer, None)
    assert found is not None
    assert all(rounded(*pair, mx.float32) for pair in zip(found, truth, strict=True))


def in_steps(*arguments: mx.array, layer: Selective) -> mx.array:
    """All outputs side by side, in operations of MLX."""
    x, conv, state, A_log, D, taps, w = arguments
    into, of_u, of_step, out = layer.projections
    N = state.shape[1]
    h = x * mx.rsqrt(mx.square(x).mean(axis=-1, keepdims=True) + 1e-3) * (w + 1.0)
    u, z = mx.split(step_by_step(h, into), 2, axis=-1)
    window = mx.concatenate([conv, u], axis=1)
    u = (window * taps[..., 0].T).sum(axis=1, keepdims=True) + layer.taps[1]
    u = u * mx.sigmoid(u)
    B, C, r = mx.split(step_by_step(u, of_u), [N, 2 * N], axis=-1)
    dt = mx.clip(mx.logaddexp(step_by_step(r, of_step), 0.0), *layer.steps)
    state = mx.exp(dt * -mx.exp(A_log).T) * state + B.swapaxes(1, 2) * (dt * u)
    y = step_by_step((C @ state + D * u) * z * mx.sigmoid(z), out)
    return mx.concatenate([(x + y).flatten(1), window[:, 1:].flatten(1), state.flatten(1)], axis=1)


def whole(*arguments: mx.array, layer: Selective) -> mx.array:
    x, conv, state, A_log, D, taps, w = arguments
    layer = layer._replace(A_log=A_log, D=D, taps=(taps, layer.taps[1]))
    found = native_selective(x, conv, state, layer, (w, 1e-3, 1.0), adds=True)
    assert found is not None
    return mx.concatenate([each.flatten(1) for each in found], axis=1)


DERIVED = made(20, 3, 2, 4, steps=(0.1, 2.0))
ARGUMENTS = [
    drawn(2, 1, WIDTH),
    drawn(2, 3, 20, seed=1),
    drawn(2, 3, 20, seed=2),
    DERIVED.A_log,
    DERIVED.D,
    DERIVED.taps[0],
    drawn(WIDTH, seed=3) / 8,
]


def test_derivatives() -> None:
    """Of every argument, forwards and backwards, through all three outputs."""
    goal, every = drawn(*in_steps(*ARGUMENTS, layer=DERIVED).shape, seed=50), tuple(range(len(ARGUMENTS)))
    found, truth = (
        mx.grad(lambda *a, call=call: (call(*a, layer=DERIVED) * goal).sum(), every)(*ARGUMENTS)
        for call in (whole, in_steps)
    )
    tangents = [drawn(*each.shape, seed=60 + i) for i, each in enumerate(ARGUMENTS)]
    forwards = [
        mx.jvp(lambda *a, call=call: call(*a, layer=DERIVED), ARGUMENTS, tangents)[1][0] for call in (whole, in_steps)
    ]
    for mine, other in zip([*found, forwards[0]], [*truth, forwards[1]], strict=True):
        assert mx.abs(mine - other).max() <= 2e-5 * mx.abs(other).max()


@pytest.mark.parametrize("axis", [0, -1])
def test_vmap(axis: int) -> None:
    several = [mx.stack([each, 0.5 * each], axis=axis) for each in ARGUMENTS]
    axes = [0 if axis == 0 else each.ndim - 1 for each in several]
    y = mx.vmap(lambda *a: whole(*a, layer=DERIVED), in_axes=tuple(axes))(*several)
    for i in range(2):
        assert mx.array_equal(y[i], whole(*(mx.take(each, i, axis) for each in several), layer=DERIVED))


def test_states_of_another_type_than_the_input_are_left_to_steps() -> None:
    conv, state = mx.zeros((1, 3, 96), mx.bfloat16), mx.zeros((1, 16, 96))
    assert native_selective(drawn(1, 1, WIDTH), conv, state, LAYERS["plain"]) is None
    found = native_selective(drawn(1, 1, WIDTH), conv.astype(mx.float32), state.astype(mx.float16), LAYERS["plain"])
    assert found is not None
    assert found[2].dtype == mx.float32


def test_what_does_not_fit_is_refused(module: Any) -> None:
    layer = made(40, 4, 2, 4)
    x, conv, state = mx.zeros((2, 1, WIDTH)), mx.zeros((2, 3, 40)), mx.zeros((2, 4, 40))
    into, of_u, of_step, out = layer.projections
    other = (mx.zeros((8, 40)), None, None, None, 0, 0, "")

    def call(x: mx.array = x, conv: mx.array = conv, state: mx.array = state, adds: bool = False, **more: Any) -> Any:
        return module.selective_layer(x, conv, state, *layer._replace(**more), None, adds)

    assert len(call()) == 3
    for refused in (
        lambda: call(x=mx.zeros((2, 2, WIDTH))),
        lambda: call(x=mx.zeros((2, WIDTH))),
        lambda: call(x=mx.zeros((2, 1, WIDTH), mx.int32)),
        lambda: call(x=mx.zeros((0, 1, WIDTH)), conv=conv[:0], state=state[:0]),
        lambda: call(conv=conv[:, 1:]),
        lambda: call(conv=conv[:1]),
        lambda: call(conv=conv.astype(mx.int32)),
        lambda: call(state=state[:, 1:]),
        lambda: call(state=state.swapaxes(1, 2)),
        lambda: call(state=state.astype(mx.int32)),
        lambda: call(A_log=layer.A_log.T),
        lambda: call(A_log=layer.A_log[:, :0]),
        lambda: call(A_log=layer.A_log.astype(mx.int32)),
        lambda: call(D=layer.D[1:]),
        lambda: call(taps=(layer.taps[0][:, 1:], layer.taps[1])),
        lambda: call(taps=(layer.taps[0][..., 0], layer.taps[1])),
        lambda: call(taps=(mx.zeros((40, 0, 1)), layer.taps[1])),
        lambda: call(taps=(layer.taps[0], layer.taps[1][1:])),
        lambda: call(projections=(out, of_u, of_step, out)),
        lambda: call(projections=(into, other, of_step, out)),
        lambda: call(projections=(into, of_u, other, out)),
        lambda: call(projections=(into, of_u, of_step, into)),
        lambda: call(projections=(into, of_u, of_step, other), adds=True),
        lambda: call(norms=((mx.ones(3), 1e-5, 0.0), None, None)),
        lambda: call(norms=(None, (mx.ones(3), 1e-5, 0.0), None)),
        lambda: call(norms=(None, None, (mx.ones(40), 1e-5, 0.0))),
        lambda: call(steps=(2.0, 1.0)),
        lambda: call(steps=(0.0, float("nan"))),
    ):
        with pytest.raises(ValueError, match="should"):
            refused()
