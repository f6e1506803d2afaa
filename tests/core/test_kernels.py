"""Kernels for GPUs: their texts compiled as C++, against the pure forms and float64; their derivatives."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import test_scan
import test_wkv7
from kernel_cases import RECURRENCES, SEQUENCES, arrays, draw, reference, relative

from axon_core.cpu import plain_forms
from axon_core.kernels._derivatives import in_place_of


def check(gpu, kind, values, limit=2e-6):
    y, state = RECURRENCES[kind](**arrays(values))
    assert len(gpu.launches) == 1
    with plain_forms():
        pure, last = RECURRENCES[kind](**arrays(values))
    assert len(gpu.launches) == 1
    for found, as_pure, exact in zip((y, state), (pure, last), reference(kind, values), strict=True):
        assert relative(found, exact) < limit
        assert relative(found, as_pure) < limit


@pytest.mark.parametrize("states", [1, 4, 16])
@pytest.mark.parametrize(("batch", "length", "channels"), [(1, 1, 1), (3, 1, 40), (2, 40, 5), (1, 300, 33), (5, 7, 64)])
def test_the_selective_scan(gpu, batch, length, channels, states):
    check(gpu, "scan", test_scan.draw(batch, length, channels, states))


@pytest.mark.parametrize(("low", "high"), [(1e-4, 100), (50, 100), (1e-4, 2e-4)])
def test_the_selective_scan_with_any_step(gpu, low, high):
    check(gpu, "scan", draw("scan", length=200, channels=20, low=low, high=high))


@pytest.mark.parametrize("key_dim", [32, 96])
@pytest.mark.parametrize(
    ("batch", "length", "key_heads", "heads", "value_dim"),
    [(1, 1, 1, 1, 1), (2, 1, 2, 4, 32), (3, 17, 1, 3, 6), (1, 60, 2, 2, 3)],
)
@pytest.mark.parametrize("kind", ["delta", "channels"])
def test_the_gated_delta_rule(gpu, kind, batch, length, key_heads, heads, key_dim, value_dim):
    sizes = {"batch": batch, "length": length, "key_heads": key_heads, "heads": heads}
    check(gpu, kind, draw(kind, **sizes, key_dim=key_dim, value_dim=value_dim))


@pytest.mark.parametrize("kind", ["delta", "channels"])
@pytest.mark.parametrize(("low", "high"), [(-10, -8), (1, 9)])
def test_the_gated_delta_rule_with_any_decay(gpu, kind, low, high):
    check(gpu, kind, draw(kind, length=30, low=low, high=high))


@pytest.mark.parametrize("key_dim", [32, 64])
@pytest.mark.parametrize(
    ("batch", "length", "heads", "value_dim"), [(1, 1, 1, 1), (2, 1, 3, 32), (3, 17, 2, 7), (1, 60, 1, 5)]
)
def test_the_recurrence_of_rwkv7(gpu, batch, length, heads, key_dim, value_dim):
    check(gpu, "wkv7", test_wkv7.draw(batch, length, heads, key_dim, value_dim))


@pytest.mark.parametrize("kind", RECURRENCES)
def test_random_sizes(gpu, kind):
    rng = np.random.default_rng(7)
    for seed in range(5):
        sizes = {"batch": int(rng.integers(2, 5)), "length": int(rng.integers(1, 12)), "seed": seed}
        if kind == "scan":
            sizes["channels"] = int(rng.integers(1, 100))
        else:
            sizes["value_dim"] = int(rng.integers(1, 7))
        check(gpu, kind, draw(kind, **sizes))
        gpu.launches.clear()


@pytest.mark.parametrize("kind", RECURRENCES)
def test_a_sequence_in_pieces_equals_the_whole(gpu, kind):
    values = draw(kind, length=24)
    y, state = RECURRENCES[kind](**arrays(values))
    outputs, carried = [], mx.array(values["state"])
    for start, end in ((0, 1), (1, 14), (14, 15), (15, 24)):
        part = values | {name: values[name][:, start:end] for name in SEQUENCES[kind]}
        piece, carried = RECURRENCES[kind](**arrays(part) | {"state": carried})
        outputs.append(piece)
    assert np.array_equal(mx.concatenate(outputs, axis=1), y)
    assert np.array_equal(carried, state)


@pytest.mark.parametrize("kind", RECURRENCES)
def test_padding_leaves_the_state_alone_whatever_stands_there(gpu, kind):
    values = draw(kind, length=20)
    kept = np.random.default_rng(1).random((2, 20)) < 0.6
    for name in SEQUENCES[kind]:
        values[name][~kept] = np.nan
    y, state = RECURRENCES[kind](**arrays(values), mask=mx.array(kept))
    for row in range(2):
        single = {name: value[row : row + 1] for name, value in values.items() if name in (*SEQUENCES[kind], "state")}
        single = values | single | {name: single[name][:, kept[row]] for name in SEQUENCES[kind]}
        expected, last = reference(kind, single)
        assert relative(np.array(y)[row : row + 1, kept[row]], expected) < 2e-6
        assert relative(state[row : row + 1], last) < 2e-6


@pytest.mark.parametrize("kind", RECURRENCES)
def test_low_precision_in_is_low_precision_out_and_float32_inside(gpu, kind):
    values = {name: mx.array(value).astype(mx.bfloat16) for name, value in draw(kind).items()}
    y, state = RECURRENCES[kind](**values)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    exact = {name: np.array(value.astype(mx.float32)) for name, value in values.items()}
    assert relative(state, reference(kind, exact)[1]) < 2e-6


@pytest.mark.parametrize("kind", RECURRENCES)
def test_arrays_that_are_not_contiguous(gpu, kind):
    """MLX copies them, as the stand-in does; the shapes must be those of the view."""
    values = draw(kind)
    views = {name: mx.array(np.ascontiguousarray(value.T)).T for name, value in values.items()}
    y, state = RECURRENCES[kind](**views)
    for found, exact in zip((y, state), reference(kind, values), strict=True):
        assert relative(found, exact) < 2e-6


@pytest.mark.parametrize("kind", RECURRENCES)
def test_the_gradient_is_that_of_the_pure_form(gpu, kind):
    values = arrays(draw(kind, length=40))
    weights = [mx.array(np.random.default_rng(i).normal(size=a.shape)) for i, a in enumerate(reference(kind, values))]

    def loss(values):
        return sum((w * found).sum() for w, found in zip(weights, RECURRENCES[kind](**values), strict=True))

    found = mx.grad(loss)(values)
    assert len(gpu.launches) == 1
    with plain_forms():
        expected = mx.grad(loss)(values)
    for name, gradient in expected.items():
        assert np.array_equal(found[name], gradient), name


@pytest.mark.parametrize("kind", RECURRENCES)
def test_transformations_take_the_pure_form(lazy, kind):
    values = arrays(draw(kind, length=4))
    names = list(values)

    def function(*inputs):
        return RECURRENCES[kind](**dict(zip(names, inputs, strict=True)))

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
    with plain_forms():
        expected = transformed()
    for a, b in zip(found, expected, strict=True):
        assert mx.allclose(a, b, rtol=1e-5, atol=1e-5 * float(mx.abs(b).max()))
        assert mx.abs(a).max() > 0


@pytest.mark.parametrize("kind", RECURRENCES)
def test_training_takes_the_memory_of_the_pure_form(lazy, kind):
    values = arrays(draw(kind, batch=1, length=2048))

    def peak():
        mx.eval(values)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(lambda values: sum(a.sum() for a in RECURRENCES[kind](**values)))(values))
        return mx.get_peak_memory() - before

    found = peak()
    with plain_forms():
        assert found < 1.1 * peak()


def test_a_kernel_in_place_of_a_pure_form_gives_its_own_values():
    run = in_place_of(lambda a, b: (a * b, a + b), lambda a, b: (a * b + 1, a + b))
    assert [a.item() for a in run(mx.array(2.0), mx.array(3.0))] == [7, 5]
