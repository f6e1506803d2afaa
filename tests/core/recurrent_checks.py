"""What every recurrent layer owes, whatever its mathematics.

A reference is `reference(layer, x) -> (y, *states)`: the layer in float64, token by token, and what its
cache then holds.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache

LENGTHS = (11, 1, 40, 23)
#: Input at padding; large enough to be seen in every output that it reaches.
GARBAGE = 5.0
#: Largest difference, relative to the largest number.
LIMIT = 3e-6


def sequence(batch=2, length=40, hidden=12, seed=1):
    return mx.array(np.random.default_rng(seed).normal(size=(batch, length, hidden)).astype(np.float32))


def parameters(layer):
    return {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}


def stirred(layer):
    """Parameters more uneven than at the start of training, so that every part of the layer matters."""
    rng = np.random.default_rng(4)
    noise = [(name, rng.normal(size=value.shape), value) for name, value in tree_flatten(layer.parameters())]
    layer.load_weights([(name, value + 0.3 * mx.array(n.astype(np.float32))) for name, n, value in noise])
    return layer


def silu(v):
    return v / (1 + np.exp(-v))


def softplus(v):
    return np.logaddexp(v, 0)


def convolved(p, x):
    """The causal convolution and SiLU in float64, and the last inputs."""
    taps = p["conv1d.weight"][..., 0]
    width = taps.shape[1]
    padded = np.pad(x, [(0, 0), (width - 1, 0), (0, 0)])
    y = sum(padded[:, k : k + x.shape[1]] * taps[:, k] for k in range(width)) + p.get("conv1d.bias", 0)
    return silu(y), padded[:, padded.shape[1] - width + 1 :]


def close(found, expected, limit=LIMIT):
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    assert found.shape == expected.shape
    if expected.size:
        assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


def pieces(layer, x, sizes, cache):
    outputs, start = [], 0
    for size in sizes:
        y, cache = layer(x[:, start : start + size], None, cache)
        outputs.append(y)
        start += size
    assert start == x.shape[1]
    return mx.concatenate(outputs, axis=1), cache


def check_pieces(layer, reference, sizes, cache):
    """A sequence cut anywhere equals the whole."""
    x = sequence(length=sum(sizes))
    expected, *states = reference(layer, x)
    y, cache = pieces(layer, x, sizes, cache)
    close(y, expected)
    for found, state in zip((cache[i] for i in range(len(states))), states, strict=True):
        close(found, state)


def check_ragged(layer, reference, sizes, side, limit=LIMIT):
    """Every row of a padded batch, cut into pieces and continued, equals its single run."""
    rows = [sequence(1, length, seed=10 + length) for length in LENGTHS]
    after = sequence(len(LENGTHS), 5, seed=99)
    pads = [max(LENGTHS) - length for length in LENGTHS]
    left = side == "left"
    x = mx.concatenate(
        [
            mx.pad(row, [(0, 0), (pad, 0) if left else (0, pad), (0, 0)], constant_values=GARBAGE)
            for row, pad in zip(rows, pads, strict=True)
        ]
    )
    _, *states = reference(layer, rows[0])
    cache = ArraysCache(len(states), left_padding=pads if left else None)
    if not left:
        cache.prepare(lengths=list(LENGTHS))
    y, cache = pieces(layer, x, sizes, cache)
    if not left:
        cache.finalize()
    more, cache = layer(after, None, cache)
    for i, (row, pad) in enumerate(zip(rows, pads, strict=True)):
        length = row.shape[1]
        start = pad if left else 0
        expected, *states = reference(layer, mx.concatenate([row, after[i : i + 1]], axis=1))
        close(y[i : i + 1, start : start + length], expected[:, :length], limit)
        close(more[i : i + 1], expected[:, length:], limit)
        for number, state in enumerate(states):
            close(cache[number][i : i + 1], state, limit)


def check_gradient(layer, reference, length, module=None):
    """Gradients of a weighted sum of outputs agree with differences of the float64 layer, in a random direction.

    They are those of `module` where the layer is called through something else.
    """
    x = sequence(1, length)
    weight = np.random.default_rng(5).normal(size=x.shape)
    w = mx.array(weight.astype(np.float32))
    gradients = nn.value_and_grad(module or layer, lambda x: (w * layer(x)[0]).sum())(x)[1]
    gradients = dict(tree_flatten(gradients))
    rng, base = np.random.default_rng(6), parameters(layer)

    class Shifted:
        def __init__(self, values):
            self.parameters = lambda: values

    assert gradients.keys() == base.keys()
    for name, gradient in gradients.items():
        direction, gradient = rng.normal(size=gradient.shape), np.array(gradient, np.float64)
        up, down = (
            (weight * reference(Shifted(base | {name: base[name] + step * direction}), x)[0]).sum()
            for step in (1e-6, -1e-6)
        )
        scale = np.abs(gradient * direction).sum()
        assert scale > 0, name
        assert abs((up - down) / 2e-6 - (gradient * direction).sum()) < 3e-6 * scale, name


def check_declared(spec, layer, options, dims):
    """Parameters and cache are those of the record."""
    assert {name: value.shape for name, value in tree_flatten(layer.parameters())} == spec.params(options, dims)
    declared = spec.cache(options, dims)
    cache = ArraysCache(len(declared.arrays))
    layer.set_dtype(mx.bfloat16)
    layer(sequence(2, 6, dims.hidden_size).astype(mx.bfloat16), None, cache)
    for array, record in zip(cache.state[0], declared.arrays, strict=True):
        assert array.shape[1:] == record.shape
        assert array.dtype == getattr(mx, record.dtype or "bfloat16")
    assert cache.nbytes == 2 * declared.nbytes(6)


def check_dirty_padding(layer, reference, limit=LIMIT):
    """Padding that is not a number reaches neither outputs nor states."""
    x = sequence(1, 40)
    dirty = mx.concatenate([mx.full((1, 3, x.shape[2]), mx.nan), x], axis=1)
    y, cache = layer(dirty, mx.arange(43)[None] >= 3)
    expected, *states = reference(layer, x)
    close(y[:, 3:], expected, limit)
    assert len(cache) == len(states)
    for state in cache:
        assert mx.isfinite(state).all()


def check_low_precision(layer, reference, spec, types, limit):
    """In bfloat16 the output keeps its type, the cache has these, and the float64 layer is near.

    Weights and activations are rounded to 8 bits at several places on the way.
    """
    x = sequence(length=30)
    expected, *_ = reference(layer, x)
    layer.set_dtype(mx.bfloat16)
    for name in spec.float32:
        layer[name] = layer[name].astype(mx.float32)
    y, cache = pieces(layer, x.astype(mx.bfloat16), [17, 1, 12], ArraysCache(len(types)))
    assert [y.dtype, *(cache[i].dtype for i in range(len(types)))] == [mx.bfloat16, *types]
    close(y.astype(mx.float32), expected, limit)


def recurrent_tests(build, reference_of, variants, states, differentiated=()):
    """The tests that every recurrent layer needs, as a class.

    Args:
        build: Options to the layer.
        reference_of: Options to its reference.
        variants: Options of the layers to test.
        states: Number of arrays in the cache.
        differentiated: Options of more layers whose gradients are tested.
    """
    every = pytest.mark.parametrize("options", variants, ids=str)

    class Recurrent:
        @every
        @pytest.mark.parametrize("sizes", [[40], [1] * 40, [2, 1, 30, 7]], ids=len)
        @pytest.mark.parametrize("make", [lambda: None, lambda: ArraysCache(states)], ids=["None", "mlx"])
        def test_a_sequence_cut_anywhere_equals_the_whole(self, options, sizes, make):
            check_pieces(build(options), reference_of(options), sizes, make())

        @every
        @pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 13, 20], [16, 16, 8]], ids=len)
        @pytest.mark.parametrize("side", ["left", "right"])
        def test_every_row_of_a_ragged_batch_equals_its_single_run(self, options, sizes, side):
            check_ragged(build(options), reference_of(options), sizes, side)

        @pytest.mark.parametrize("options", [*variants, *differentiated], ids=str)
        def test_gradient_agrees_with_differences_of_the_float64_layer(self, options):
            check_gradient(build(options), reference_of(options), 20)

    return Recurrent
