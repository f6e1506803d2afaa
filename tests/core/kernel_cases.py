"""Recurrences that have a kernel, with arguments, references and checks for each, and a device as components see it."""

from __future__ import annotations

from functools import partial

import delta_reference
import mlx.core as mx
import numpy as np
import test_linear_scan
import test_scan
import test_ssd
import test_wkv7

from axon_core.cpu import reference_implementations
from axon_core.gated_delta import gated_delta_rule
from axon_core.kernels import _device
from axon_core.linear_scan import linear_scan
from axon_core.scan import selective_scan
from axon_core.ssd import ssd_scan
from axon_core.wkv7 import wkv7

#: Those with a kernel for GPUs.
RECURRENCES = {"scan": selective_scan, "delta": gated_delta_rule, "channels": gated_delta_rule, "wkv7": wkv7}
#: Those that `axon-native` has.
NATIVE = RECURRENCES | {"ssd": ssd_scan, "linear": linear_scan}
#: Where their arguments are drawn, and computed in float64.
MODULES = {
    "scan": test_scan,
    "ssd": test_ssd,
    "delta": delta_reference,
    "channels": delta_reference,
    "wkv7": test_wkv7,
    "linear": test_linear_scan,
}
SEQUENCES = {
    "scan": ("x", "dt", "B", "C"),
    "ssd": ("x", "dt", "B", "C"),
    "delta": delta_reference.SEQUENCES,
    "channels": delta_reference.SEQUENCES,
    "wkv7": test_wkv7.SEQUENCES,
    "linear": ("x", "log_a"),
}


def draw(kind, **options):
    """Arguments for which there is a kernel."""
    if kind == "scan":
        return test_scan.draw(**{"states": 4} | options)
    if kind in ("ssd", "linear"):
        return MODULES[kind].draw(**options)
    drawn = {
        "delta": delta_reference.draw,
        "channels": partial(delta_reference.draw, channels=True),
        "wkv7": test_wkv7.draw,
    }
    return drawn[kind](**{"key_dim": 32, "value_dim": 3} | options)


def reference(kind, values):
    """Outputs and last state in float64."""
    if kind in ("wkv7", "linear"):
        return MODULES[kind].reference(values)
    if kind in ("scan", "ssd"):
        y, states = MODULES[kind].reference(**values)
    else:
        y, states = delta_reference.reference(values)
    return y, states[-1]


def gradients(kind, values, gy, gs, **options):
    """Those of `sum(gy * y) + sum(gs * last state)` by all arguments, by name."""
    gy, gs = mx.array(gy.astype(np.float32)), mx.array(gs.astype(np.float32))
    names = list(values)

    def loss(*inputs):
        y, state = run(kind, dict(zip(names, inputs, strict=True)), **options)
        return (gy * y).sum() + (gs * state).sum()

    found = mx.grad(loss, argnums=range(len(names)))(*arrays(values).values())
    return dict(zip(names, found, strict=True))


def arrays(values):
    return {name: mx.array(value) for name, value in values.items()}


def relative(found, expected):
    expected = np.asarray(expected, np.float64)
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


def run(kind, values, **options):
    return NATIVE[kind](**arrays(values), **options)


def pieces_equal_the_whole(kind):
    values = draw(kind, length=24)
    y, state = run(kind, values)
    outputs, carried = [], values["state"]
    for start, end in ((0, 1), (1, 14), (14, 15), (15, 24)):
        part = values | {name: values[name][:, start:end] for name in SEQUENCES[kind]}
        piece, carried = run(kind, part | {"state": carried})
        outputs.append(piece)
    assert np.array_equal(mx.concatenate(outputs, axis=1), y)
    assert np.array_equal(carried, state)


def padding_leaves_the_state_alone(kind):
    values = draw(kind, length=20)
    kept = np.random.default_rng(1).random((2, 20)) < 0.6
    for name in SEQUENCES[kind]:
        values[name][~kept] = np.nan
    y, state = run(kind, values, mask=mx.array(kept))
    for row in range(2):
        single = {name: value[row : row + 1] for name, value in values.items() if name in (*SEQUENCES[kind], "state")}
        single = values | single | {name: single[name][:, kept[row]] for name in SEQUENCES[kind]}
        expected, last = reference(kind, single)
        assert relative(np.array(y)[row : row + 1, kept[row]], expected) < 2e-6
        assert relative(state[row : row + 1], last) < 2e-6


def low_precision_outside_is_float32_inside(kind):
    values = {name: mx.array(value).astype(mx.bfloat16) for name, value in draw(kind).items()}
    y, state = run(kind, values)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    exact = {name: np.array(value.astype(mx.float32)) for name, value in values.items()}
    assert relative(state, reference(kind, exact)[1]) < 2e-6


def gaps_do_not_matter(kind):
    values = draw(kind)
    views = {name: mx.array(np.ascontiguousarray(value.T)).T for name, value in values.items()}
    for found, exact in zip(run(kind, views), reference(kind, values), strict=True):
        assert relative(found, exact) < 2e-6


#: What holds of every form of every recurrence.
SHARED = (
    pieces_equal_the_whole,
    padding_leaves_the_state_alone,
    low_precision_outside_is_float32_inside,
    gaps_do_not_matter,
)


def transformations_are_those_of_the_pure_form(kind):
    """Gradients, maps over a batch and forward derivatives, and those that are compiled."""
    values = arrays(draw(kind, length=4))
    names = list(values)

    def function(*inputs):
        return run(kind, dict(zip(names, inputs, strict=True)))

    def gradient(*inputs):
        return mx.grad(lambda *inputs: sum(a.sum() for a in function(*inputs)), argnums=range(len(names)))(*inputs)

    inputs = list(values.values())
    several = [a if name in ("A", "D") else mx.stack([a, a, a]) for name, a in values.items()]
    axes = tuple(None if name in ("A", "D") else 0 for name in names)

    def transformed():
        return [
            *mx.vmap(function, in_axes=axes)(*several),
            *mx.jvp(function, inputs, [mx.ones_like(a) for a in inputs])[1],
            *mx.compile(gradient)(*inputs),
        ]

    found = transformed()
    with reference_implementations():
        expected = transformed()
    for a, b in zip(found, expected, strict=True):
        assert mx.allclose(a, b, rtol=1e-5, atol=1e-5 * float(mx.abs(b).max()))
        assert mx.abs(a).max() > 0


def install(monkeypatch, spoken, kernel):
    """Make a GPU the default device, as far as the components see."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx.metal, "is_available", lambda: spoken == "metal")
    monkeypatch.setattr(mx.cuda, "is_available", lambda: spoken == "cuda")
    monkeypatch.setattr(mx.fast, f"{spoken}_kernel", kernel)
    _device._built.cache_clear()
