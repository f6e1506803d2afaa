"""The gradients of `axon-native` against the recurrences run backwards in float64, and those of the reference forms."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from kernel_cases import MODULES, NATIVE, SEQUENCES, arrays, draw, gradients, relative, run

from axon_core.cpu import reference_implementations
from axon_core.kernels import _native

# One worker builds it, and runs all of them.
pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]


def arriving(kind, values, seed=3):
    """Gradients at the outputs and at the last state, which are drawn."""
    rng = np.random.default_rng(seed)
    y, state = run(kind, values)
    return rng.normal(size=y.shape), rng.normal(size=state.shape)


def error(found, expected):
    """Relative to the largest, which is almost zero for a state's where every decay underflows."""
    return np.abs(np.asarray(found, np.float64) - expected).max() / max(np.abs(expected).max(), 1e-6)


def check(kind, values, limit=2e-6):
    """Against float64; and the same of the reference form, with which it must not be confused."""
    gy, gs = arriving(kind, values)
    found = gradients(kind, values, gy, gs)
    with reference_implementations():
        pure = gradients(kind, values, gy, gs)
    expected = MODULES[kind].reference_gradient(values, gy, gs)
    for name, gradient in found.items():
        assert gradient.shape == values[name].shape
        assert error(gradient, expected[name]) < max(limit, 2 * error(pure[name], expected[name])), name
    if values[SEQUENCES[kind][0]].size > 100:
        assert any(not np.array_equal(found[name], pure[name]) for name in found), "the reference form ran"


# A chunk has as many tokens as the root of all.
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 35, 36, 37, 530])
@pytest.mark.parametrize("kind", NATIVE)
def test_every_length_around_the_edges_of_chunks(kind, length):
    check(kind, draw(kind, length=length))


@pytest.mark.parametrize("kind", NATIVE)
def test_what_memory_held_before_changes_nothing(kind):
    """States are laid out in whole vectors, and what is beyond their widths is multiplied by zero."""
    values = draw(kind, length=20)
    arriving_here = arriving(kind, values)
    expected = gradients(kind, values, *arriving_here)
    for size in range(100, 6000, 50):
        mx.eval(mx.full((size,), float("nan")))
        for name, gradient in gradients(kind, values, *arriving_here).items():
            assert np.array_equal(gradient, expected[name]), name


@pytest.mark.parametrize(("channels", "states"), [(1, 1), (16, 4), (17, 3), (200, 16), (5, 33)])
def test_the_selective_scan_of_any_width(channels, states):
    check("scan", draw("scan", batch=3, length=40, channels=channels, states=states))


@pytest.mark.parametrize(("key_dim", "value_dim"), [(1, 1), (5, 8), (8, 7), (64, 33), (33, 100)])
@pytest.mark.parametrize(("key_heads", "heads"), [(2, 4), (1, 3), (2, 2), (1, 20)])
@pytest.mark.parametrize("kind", ["delta", "channels"])
def test_the_gated_delta_rule_of_any_width(kind, key_heads, heads, key_dim, value_dim):
    values = draw(kind, length=20, key_heads=key_heads, heads=heads, key_dim=key_dim, value_dim=value_dim)
    check(kind, values, limit=3e-6)


@pytest.mark.parametrize(("key_dim", "value_dim"), [(1, 1), (5, 8), (8, 7), (64, 33), (33, 100)])
def test_the_recurrence_of_rwkv7_of_any_width(key_dim, value_dim):
    check("wkv7", draw("wkv7", length=20, key_dim=key_dim, value_dim=value_dim), limit=3e-6)


@pytest.mark.parametrize(("groups", "heads"), [(1, 1), (1, 40), (3, 6), (5, 5)])
@pytest.mark.parametrize(("width", "states"), [(1, 1), (9, 64), (70, 12)])
def test_the_scan_of_mamba2_of_any_width(monkeypatch, groups, heads, width, states):
    for name, size in {"GROUPS": groups, "HEADS": heads, "WIDTH": width, "STATES": states}.items():
        monkeypatch.setattr(MODULES["ssd"], name, size)
    check("ssd", draw("ssd", batch=3, length=20))


@pytest.mark.parametrize("channels", [1, 8, 255, 256, 300])
def test_the_linear_recurrence_of_any_width(channels):
    check("linear", draw("linear", batch=3, length=20, channels=channels))


@pytest.mark.parametrize("kind", ["scan", "ssd"])
@pytest.mark.parametrize(("low", "high"), [(1e-4, 1e-3), (1e-4, 10), (20, 100)], ids=lambda v: f"{v:g}")
def test_any_size_of_steps(kind, low, high):
    check(kind, draw(kind, length=300, low=low, high=high), limit=3e-6)


@pytest.mark.parametrize("kind", ["delta", "channels"])
@pytest.mark.parametrize(("low", "high"), [(-18, -16), (-4, 9.3)])
def test_the_gated_delta_rule_with_any_decay(kind, low, high):
    check(kind, draw(kind, length=200, low=low, high=high), limit=3e-6)


@pytest.mark.parametrize("kind", ["delta", "channels"])
def test_rates_above_one_make_negative_eigenvalues(kind):
    values = draw(kind, length=150, low=-8, high=-4, key_dim=8)
    values["beta"] *= 2
    assert values["beta"].max() > 1.9
    check(kind, values, limit=3e-6)


@pytest.mark.parametrize("kind", ["delta", "channels"])
def test_a_closed_gate_has_a_gradient(kind):
    values = draw(kind, length=20)
    values["log_g"][:, 7] = -np.inf
    for name, gradient in gradients(kind, values, *arriving(kind, values)).items():
        assert mx.isfinite(gradient).all(), name


@pytest.mark.parametrize("kind", NATIVE)
def test_padding_has_none_whatever_stands_there(kind):
    values = draw(kind, length=40)
    kept = np.random.default_rng(1).random((2, 40)) < 0.6
    gy, gs = arriving(kind, values)
    gy[~kept] = 0
    clean = gradients(kind, values, gy, gs, mask=mx.array(kept))
    with reference_implementations():
        pure = gradients(kind, values, gy, gs, mask=mx.array(kept))
    for name in SEQUENCES[kind]:
        # Of x, steps times x and D x are made before anything is masked.
        values[name][~kept] = 1e3 if kind in ("scan", "ssd") else np.nan
    dirty = gradients(kind, values, gy, gs, mask=mx.array(kept))
    for name in values:
        assert relative(clean[name], pure[name]) < 3e-6, name
        if name in SEQUENCES[kind]:
            assert (np.array(clean[name])[~kept] == 0).all(), name
            assert (np.array(dirty[name])[~kept] == 0).all(), name
            assert np.array_equal(np.array(clean[name])[kept], np.array(dirty[name])[kept]), name
        else:
            assert np.array_equal(clean[name], dirty[name]), name


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize("kind", NATIVE)
def test_low_precision_outside_is_float32_inside(kind, dtype):
    values = draw(kind, length=60)
    coarse = {name: a.astype(dtype) for name, a in arrays(values).items()}
    exact = {name: np.array(a.astype(mx.float32)) for name, a in coarse.items()}
    names = list(values)

    def loss(*inputs):
        y, state = NATIVE[kind](**dict(zip(names, inputs, strict=True)))
        return y.astype(mx.float32).sum() + state.sum()

    found = mx.grad(loss, argnums=range(len(names)))(*coarse.values())
    y, state = run(kind, exact)
    expected = MODULES[kind].reference_gradient(exact, np.ones(y.shape), np.ones(state.shape))
    for name, gradient in zip(names, found, strict=True):
        assert gradient.dtype == dtype
        rounding = 2**-8 if dtype == mx.bfloat16 else 2**-11
        assert relative(gradient.astype(mx.float32), expected[name]) < rounding, name


@pytest.mark.parametrize("kind", NATIVE)
def test_what_needs_no_gradient_changes_none(kind):
    """The outputs alone, the last state alone, and no argument but one."""
    values = draw(kind, length=30)
    gy, gs = arriving(kind, values)
    whole = gradients(kind, values, gy, gs)
    parts = [gradients(kind, values, gy, 0 * gs), gradients(kind, values, 0 * gy, gs)]
    for name, gradient in whole.items():
        assert relative(parts[0][name] + parts[1][name], gradient) < 3e-6, name
    name, *_ = SEQUENCES[kind]
    only = mx.grad(lambda a: (mx.array(gy, mx.float32) * run(kind, values | {name: a})[0]).sum())
    assert np.array_equal(only(mx.array(values[name])), parts[0][name])


@pytest.mark.parametrize("kind", NATIVE)
def test_second_derivatives_are_those_of_the_reference_form(kind):
    values = draw(kind, length=5)
    gy, _ = arriving(kind, values)
    name, *_ = SEQUENCES[kind]

    def curvature(a):
        def loss(a):
            y, state = run(kind, values | {name: a})
            return (mx.array(gy, mx.float32) * mx.square(y)).sum() + mx.square(state).sum()

        return mx.grad(lambda a: mx.square(mx.grad(loss)(a)).sum())(a)

    found = curvature(mx.array(values[name]))
    with reference_implementations():
        assert relative(found, curvature(mx.array(values[name]))) < 1e-4


def write_digests():
    """Of the gradients of every recurrence, in calls that are long enough for threads."""
    sys.stdout.write(f"threads {_native.native().most_threads()}\n")
    for kind in NATIVE:
        large = {"channels": 300, "states": 16} if kind == "scan" else {}
        values = draw(kind, batch=3, length=500, **large)
        found = gradients(kind, values, *arriving(kind, values))
        digest = sha256(b"".join(np.array(gradient).tobytes() for gradient in found.values()))
        sys.stdout.write(f"{kind} {digest.hexdigest()}\n")


def test_the_number_of_threads_changes_nothing(built: Path):
    """In processes of their own, for a process decides once how many it takes."""
    found = []
    for threads in ("1", "3"):
        paths = os.pathsep.join([str(built), *sys.path])
        environment = os.environ | {"PYTHONPATH": paths, "AXON_NATIVE": "1", "AXON_THREADS": threads}
        command = [sys.executable, "-c", "import test_native_gradients; test_native_gradients.write_digests()"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        first, *digests = done.stdout.splitlines()
        assert (first, len(digests)) == (f"threads {threads}", len(NATIVE)), done.stderr
        found.append(digests)
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", NATIVE)
def test_memory_is_that_of_inputs_and_gradients(kind):
    """And of what threads work with, which grows with the root of the length."""

    def peak(length):
        values = draw(kind, batch=1, length=length)
        gy, gs = arriving(kind, values)
        mx.eval(gradients(kind, values, gy, gs))
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(gradients(kind, values, gy, gs))
        return mx.get_peak_memory() - before, sum(value.nbytes for value in values.values())

    (short, few), (long, many) = peak(1024), peak(8192)
    assert long - short < 8 * (many - few)


@pytest.mark.parametrize("kind", NATIVE)
def test_nothing_has_no_gradient(kind):
    values = draw(kind, batch=0)
    for name, gradient in gradients(kind, values, *arriving(kind, values)).items():
        assert gradient.shape == values[name].shape
        assert not np.asarray(gradient).any()


def test_shapes_that_do_not_fit_are_refused(module):
    state, x = mx.zeros((1, 4)), mx.zeros((1, 5, 4))
    with pytest.raises(ValueError, match="dlast should"):
        module.linear_scan_vjp(state, x, x, x, x)
    with pytest.raises(ValueError, match="dy should"):
        module.linear_scan_vjp(state, x, x, mx.zeros((1, 4, 4)), state)
    A, B = mx.zeros((3, 4)), mx.zeros((1, 5, 3))
    with pytest.raises(ValueError, match="dy should"):
        module.selective_scan_vjp(A, mx.zeros((1, 3, 4)), x, x, B, B, mx.zeros((1, 5, 3)), mx.zeros((1, 3, 4)))
    keys = mx.zeros((1, 5, 2, 8))
    with pytest.raises(ValueError, match="dlast should"):
        module.ssd_scan_vjp(mx.zeros((1, 2, 8, 8)), keys[..., 0], keys, keys, keys, keys, mx.zeros((1, 2, 8)))


def test_a_training_step_of_a_model_takes_them(built: Path):
    """In a process that finds it among what is installed: operations of MLX are traced by name."""
    script = """
import mlx.core as mx
from axon_core.ssd import ssd_scan
x = mx.random.normal((1, 5, 2, 8))
dt, A, B = mx.ones((1, 5, 2)), -mx.ones((2,)), mx.random.normal((1, 5, 1, 4))
gradient = mx.grad(lambda x: ssd_scan(x, dt, A, B, B)[0].sum())
import sys
mx.export_to_dot(sys.stdout, gradient(x))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(built), *sys.path]), "AXON_NATIVE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "SSDScanVJP" in done.stdout, done.stderr
