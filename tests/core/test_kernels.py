"""Kernels for GPUs: their texts compiled as C++, against the pure forms and float64; their derivatives."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import test_scan
import test_wkv7
from kernel_cases import (
    RECURRENCES,
    SHARED,
    arrays,
    draw,
    reference,
    relative,
    transformations_are_those_of_the_pure_form,
)

from axon_core.cpu import reference_implementations
from axon_core.kernels._derivatives import in_place_of


def check(gpu, kind, values, limit=2e-6):
    y, state = RECURRENCES[kind](**arrays(values))
    assert len(gpu.launches) == 1
    with reference_implementations():
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
@pytest.mark.parametrize("holds", SHARED)
def test_what_holds_of_every_form(gpu, kind, holds):
    """MLX copies what has gaps, as the stand-in does; the shapes must be those of the view."""
    holds(kind)


@pytest.mark.parametrize("kind", RECURRENCES)
def test_the_gradient_is_that_of_the_pure_form(gpu, kind):
    values = arrays(draw(kind, length=40))
    weights = [mx.array(np.random.default_rng(i).normal(size=a.shape)) for i, a in enumerate(reference(kind, values))]

    def loss(values):
        return sum((w * found).sum() for w, found in zip(weights, RECURRENCES[kind](**values), strict=True))

    found = mx.grad(loss)(values)
    assert len(gpu.launches) == 1
    with reference_implementations():
        expected = mx.grad(loss)(values)
    for name, gradient in expected.items():
        assert np.array_equal(found[name], gradient), name


@pytest.mark.parametrize("kind", RECURRENCES)
def test_transformations_take_the_pure_form(lazy, kind):
    """Maps over a batch and forward derivatives pass for the stand-in alone: kernels of MLX itself have none."""
    transformations_are_those_of_the_pure_form(kind)


@pytest.mark.parametrize("kind", RECURRENCES)
def test_training_takes_the_memory_of_the_pure_form(lazy, kind):
    # Large enough that it does not matter how far MLX runs ahead of itself.
    values = arrays(draw(kind, batch=1, length=1024, **{"channels": 64} if kind == "scan" else {"value_dim": 32}))

    def peak():
        mx.eval(values)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(lambda values: sum(a.sum() for a in RECURRENCES[kind](**values)))(values))
        return mx.get_peak_memory() - before

    found = min(peak(), peak())
    with reference_implementations():
        assert found < 1.1 * min(peak(), peak())


def test_a_kernel_in_place_of_a_pure_form_gives_its_own_values():
    run = in_place_of(lambda a, b: (a * b, a + b), lambda a, b: (a * b + 1, a + b))
    assert [a.item() for a in run(mx.array(2.0), mx.array(3.0))] == [7, 5]
