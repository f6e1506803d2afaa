"""The gated short convolution against its definition in float64, and against mlx-lm's module of LFM2."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import lfm2
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import pieces

from axon_compose.registry import Dims
from axon_core.short_conv import ShortConv
from axon_core.specs.short_conv import SPECS, ShortConvOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
VARIANTS = [{}, {"d_conv": 4, "bias": True}, {"d_conv": 2}]
LENGTHS = [11, 1, 30, 23]


def build(options):
    mx.random.seed(0)
    layer = ShortConv.from_options(ShortConvOptions.model_validate(options), DIMS)
    layer.in_proj.weight = 3 * layer.in_proj.weight
    if options.get("bias"):
        for part in (layer.in_proj, layer.conv, layer.out_proj):
            part.bias = mx.random.normal(part.bias.shape)
    return layer


def sequence(batch=2, length=30, seed=1):
    return mx.array(np.random.default_rng(seed).normal(size=(batch, length, HIDDEN)).astype(np.float32))


def weights(layer):
    return {name: np.array(value, np.float64) for name, value in tree_flatten(layer.parameters())}


def reference(w, x):
    """Output and the last inputs of the convolution, in float64, token by token."""
    taps = w["conv.weight"][..., 0]
    width = taps.shape[1]
    before, after, inner = np.split(np.array(x, np.float64) @ w["in_proj.weight"].T + w.get("in_proj.bias", 0), 3, -1)
    inputs = before * inner
    y = np.zeros_like(inputs)
    for t in range(x.shape[1]):
        for k in range(min(width, t + 1)):
            y[:, t] += taps[:, width - 1 - k] * inputs[:, t - k]
    y = after * (y + w.get("conv.bias", 0))
    state = np.pad(inputs, [(0, 0), (width - 1, 0), (0, 0)])[:, x.shape[1] :]
    return y @ w["out_proj.weight"].T + w.get("out_proj.bias", 0), state


def close(found, expected, limit=2e-6):
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    assert found.shape == expected.shape
    if expected.size:
        assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [2, 1, 20, 7], [29, 1]], ids=lambda s: str(len(s)))
@pytest.mark.parametrize("make", [lambda: None, lambda: [None], lambda: ArraysCache(1)], ids=["None", "list", "mlx"])
def test_a_sequence_cut_anywhere_equals_the_definition(options, sizes, make):
    layer, x = build(options), sequence()
    expected, state = reference(weights(layer), x)
    y, cache = pieces(layer, x, sizes, make())
    close(y, expected)
    close(cache[0], state)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[30], [17, 1, 12]], ids=str)
def test_equals_the_module_of_mlx_lm(options, sizes):
    layer, x = build(options), sequence()
    given = ShortConvOptions.model_validate(options)
    theirs = lfm2.ShortConv(SimpleNamespace(conv_L_cache=given.d_conv, conv_bias=given.bias, hidden_size=HIDDEN), 0)
    theirs.load_weights(tree_flatten(layer.parameters()), strict=True)
    cache, want, start = ArraysCache(1), [], 0
    for size in sizes:
        want.append(theirs(x[:, start : start + size], None, cache))
        start += size
    y, ours = pieces(layer, x, sizes, ArraysCache(1))
    close(y, mx.concatenate(want, axis=1))
    close(ours[0], cache[0])


def test_it_is_causal_and_sees_so_many_tokens():
    layer, x = build({"d_conv": 4}), sequence(1)
    changed = layer(mx.concatenate([x[:, :9], x[:, 9:10] + 1, x[:, 10:]], axis=1))[0]
    reached = np.abs(np.array(changed - layer(x)[0])).max(axis=(0, 2)) > 0
    assert np.flatnonzero(reached).tolist() == [9, 10, 11, 12]


def padded(rows, side):
    longest = max(LENGTHS)
    pads = [(longest - row.shape[1], 0) if side == "left" else (0, longest - row.shape[1]) for row in rows]
    parts = [
        mx.pad(row, [(0, 0), pad, (0, 0)], constant_values=float("nan")) for row, pad in zip(rows, pads, strict=True)
    ]
    return mx.concatenate(parts), [pad[0] for pad in pads]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [7, 13, 10], [12, 18]], ids=lambda s: str(len(s)))
@pytest.mark.parametrize("side", ["left", "right", "right, merged"])
def test_every_padded_row_equals_its_single_run_and_goes_on(options, sizes, side):
    """Input at padding is not even a number. A merged cache has rows that were read before."""
    layer = build(options)
    earlier = [sequence(1, 5, seed=70 + length) for length in LENGTHS] if "merged" in side else None
    rows = [sequence(1, length, seed=10 + length) for length in LENGTHS]
    tail = sequence(len(LENGTHS), 5, seed=99)
    x, pads = padded(rows, side)
    if earlier is None:
        cache = ArraysCache(1, left_padding=pads if side == "left" else None)
    else:
        cache = ArraysCache.merge([layer(row, None, ArraysCache(1))[1] for row in earlier])
    if side != "left":
        cache.prepare(lengths=list(LENGTHS))
    y, cache = pieces(layer, x, sizes, cache)
    if side != "left":
        cache.finalize()
    after, cache = layer(tail, None, cache)
    for i, (row, pad) in enumerate(zip(rows, pads, strict=True)):
        before = earlier[i : i + 1] if earlier else []
        start = 5 * len(before)
        expected, state = reference(weights(layer), mx.concatenate([*before, row, tail[i : i + 1]], axis=1))
        close(y[i : i + 1, pad : pad + row.shape[1]], expected[:, start : start + row.shape[1]])
        close(after[i : i + 1], expected[:, start + row.shape[1] :])
        close(cache[0][i : i + 1], state)


def test_the_cache_advances_once_per_call_and_a_list_is_not_changed():
    layer, cache = build({}), ArraysCache(1, left_padding=[3, 0])
    layer(sequence(length=2), None, cache)
    assert cache.left_padding.tolist() == [1, -2]
    _, before = layer(sequence())
    copy = np.array(before[0])
    layer(sequence(), None, before)
    np.testing.assert_array_equal(np.array(before[0]), copy)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_low_precision_keeps_its_type(dtype):
    layer, x = build({"d_conv": 4, "bias": True}), sequence()
    expected, _ = reference(weights(layer), x)
    layer.set_dtype(dtype)
    y, cache = pieces(layer, x.astype(dtype), [17, 1, 12], ArraysCache(1))
    assert (y.dtype, cache[0].dtype) == (dtype, dtype)
    # Weights and activations are rounded to 8 (11) bits at five places on the way.
    close(y.astype(mx.float32), expected, 0.03 if dtype == mx.bfloat16 else 0.004)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradients_agree_with_differences_of_the_definition(options):
    layer, x = build(options), sequence(1, 12)
    weight = np.random.default_rng(5).normal(size=(1, 12, HIDDEN))
    w = mx.array(weight.astype(np.float32))
    grads = dict(tree_flatten(nn.value_and_grad(layer, lambda x: (w * layer(x)[0]).sum())(x)[1]))
    base, rng = weights(layer), np.random.default_rng(6)
    assert set(grads) == set(base)
    for name, grad in grads.items():
        direction = rng.normal(size=grad.shape)
        up, down = (
            (weight * reference(base | {name: base[name] + step * direction}, x)[0]).sum() for step in (1e-6, -1e-6)
        )
        scale = np.abs(np.array(grad) * direction).sum()
        assert scale > 0, name
        assert (up - down) / 2e-6 == pytest.approx((np.array(grad) * direction).sum(), abs=3e-6 * scale), name


@pytest.mark.parametrize("options", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(options):
    given, cache = ShortConvOptions.model_validate(options), ArraysCache(1)
    layer = ShortConv.from_options(given, DIMS)
    assert {name: value.shape for name, value in tree_flatten(layer.parameters())} == SPEC.params(given, DIMS)
    layer.set_dtype(mx.bfloat16)
    layer(sequence(2, 6).astype(mx.bfloat16), None, cache)
    (array,) = SPEC.cache(given, DIMS).arrays
    assert cache[0].shape[1:] == array.shape
    assert cache.nbytes == 2 * SPEC.cache(given, DIMS).nbytes(6)


@pytest.mark.parametrize("options", [{"d_conv": 1}, {"d_conv": True}, {"bias": 1}, {"kernel": 3}], ids=str)
def test_faulty_options_are_told_at_their_place(options):
    with pytest.raises(ValidationError) as raised:
        ShortConvOptions.model_validate(options)
    assert [error["loc"] for error in raised.value.errors()] == [tuple(options)]
