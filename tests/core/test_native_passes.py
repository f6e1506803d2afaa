"""Norms, gates, rotations and the attention of one token by `axon-native`, against float64 and MLX's derivatives."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache

from axon_core.attention import Attention
from axon_core.cpu import reference_implementations
from axon_core.kernels import (
    _passes,
    native_activated,
    native_attention,
    native_convolution,
    native_gated,
    native_layer_norm,
    native_norm,
    native_rotation,
)
from axon_core.specs._rope import RopeOptions

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

#: Types, and what one rounding may lose of a number; of float32 what a sum loses too.
TYPES = {mx.float32: 1e-6, mx.bfloat16: 2.0**-8, mx.float16: 2.0**-11}
typed = pytest.mark.parametrize("dtype", TYPES, ids=str)


def drawn(*shape: int, seed: int = 0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape), dtype=mx.float32).astype(dtype)


def exact(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def is_right(y: mx.array | None, truth: np.ndarray, dtype: mx.Dtype) -> bool:
    assert y is not None
    assert y.dtype == dtype
    return bool((np.abs(exact(y) - truth) <= TYPES[dtype] * np.abs(truth) + 1e-6 * np.abs(truth).max()).all())


@typed
@pytest.mark.parametrize("shape", [(5,), (2, 3, 8), (2, 2, 67)])
def test_a_norm(shape: tuple[int, ...], dtype: mx.Dtype) -> None:
    x, weight = drawn(*shape, dtype=dtype), drawn(shape[-1], seed=1, dtype=dtype)
    wide = exact(x)
    truth = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-3) * exact(weight)
    assert is_right(native_norm(x, weight, 1e-3), truth, dtype)
    turned = mx.contiguous(x.swapaxes(0, -1)).swapaxes(0, -1)
    assert is_right(native_norm(turned, weight[::-1][::-1], 1e-3), truth, dtype)


@typed
def test_a_norm_has_the_type_that_it_has_in_mlx(dtype: mx.Dtype) -> None:
    """As where weights are kept in float32, or an offset is added to them."""
    x, weight = drawn(2, 8, dtype=dtype), drawn(8, seed=1)
    for pair in ((x, weight), (weight[None], x[0])):
        y, truth = native_norm(*pair, 1e-3), mx.fast.rms_norm(*pair, 1e-3)
        assert y is not None
        assert y.dtype == truth.dtype
        assert mx.allclose(y, truth, rtol=1e-5, atol=1e-5)


@typed
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 8), (2, 2, 67)])
def test_a_layer_norm(shape: tuple[int, ...], shifted: bool, dtype: mx.Dtype) -> None:
    x, weight = drawn(*shape, dtype=dtype) + 2, drawn(shape[-1], seed=1, dtype=dtype)
    bias = drawn(shape[-1], seed=2, dtype=dtype) if shifted else None
    wide = exact(x) - exact(x).mean(axis=-1, keepdims=True)
    truth = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-3) * exact(weight)
    truth = truth if bias is None else truth + exact(bias)
    assert is_right(native_layer_norm(x, weight, bias, 1e-3), truth, dtype)
    turned = mx.contiguous(x.swapaxes(0, -1)).swapaxes(0, -1)
    assert is_right(native_layer_norm(turned, weight[::-1][::-1], bias, 1e-3), truth, dtype)


#: What the sigmoid is taken of, by the activation.
GATES = {
    "silu": lambda g: g,
    "gelu_tanh": lambda g: 2 * np.sqrt(2 / np.pi) * (g + 0.044715 * g**3),
    "gelu_quick": lambda g: 1.702 * g,
}


@typed
@pytest.mark.parametrize("activation", GATES)
@pytest.mark.parametrize("width", [3, 8, 67])
def test_a_gate(width: int, activation: str, dtype: mx.Dtype) -> None:
    """Also far from zero, where an exponential by itself would overflow."""
    gate, x = drawn(2, 3, width, dtype=dtype) * mx.array([1, 30, 3000], dtype)[:, None], drawn(2, 3, width, seed=1)
    x = mx.contiguous(x.astype(dtype).swapaxes(0, -1)).swapaxes(0, -1)
    inner = GATES[activation](exact(gate))
    truth = exact(gate) * np.exp(np.minimum(inner, 0)) / (1 + np.exp(-np.abs(inner))) * exact(x)
    assert is_right(native_gated(activation, gate, x), truth, dtype)


@typed
@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize(("width", "pairs"), [(8, 4), (20, 5), (66, 33)])
def test_a_rotation(width: int, pairs: int, traditional: bool, dtype: mx.Dtype) -> None:
    x, cosines, sines = drawn(2, 3, 4, width, dtype=dtype), drawn(3, width, seed=1), drawn(3, width, seed=2)
    x = x.transpose(0, 2, 1, 3)  # as heads come out of a projection
    partner = np.arange(width)
    first = np.arange(0, 2 * pairs, 2) if traditional else np.arange(pairs)
    second = first + 1 if traditional else first + pairs
    partner[first], partner[second] = second, first
    truth = exact(x) * exact(cosines) + exact(x)[..., partner] * exact(sines)
    assert is_right(native_rotation(x, cosines, sines, pairs, traditional=traditional), truth, dtype)


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, sinks: np.ndarray | None) -> np.ndarray:
    """In float64, every head with keys and values of its own."""
    k, v = (np.repeat(each, q.shape[1] // each.shape[1], axis=1) for each in (k, v))
    weights = np.exp(q @ k.swapaxes(-1, -2) * scale)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks)[:, None, None]
    return weights @ v / total


@typed
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize(
    ("heads", "groups", "tokens", "width", "wide"), [(4, 2, 1, 8, 8), (6, 1, 37, 20, 12), (3, 3, 9, 64, 65)]
)
def test_the_attention_of_one_token(
    heads: int, groups: int, tokens: int, width: int, wide: int, sinks: bool, dtype: mx.Dtype
) -> None:
    """Keys are a part of a longer array, as a cache hands them out, and values lie in another order."""
    q = drawn(2, 1, heads, width, dtype=dtype).transpose(0, 2, 1, 3)
    k = drawn(2, groups, tokens + 3, width, seed=1, dtype=dtype)[:, :, :tokens]
    v = drawn(2, tokens, groups, wide, seed=2, dtype=dtype).transpose(0, 2, 1, 3)
    s = drawn(heads, seed=3) if sinks else None
    y = native_attention(q, k, v, 0.3, s)
    truth = attended(exact(q), exact(k), exact(v), 0.3, None if s is None else exact(s))
    assert is_right(y, truth, dtype)


CALLS: dict[str, tuple[Any, tuple[mx.array, ...]]] = {
    "norm": (lambda x, w: native_norm(x, w, 1e-3), (drawn(2, 5), drawn(5, seed=1))),
    "layer norm": (
        lambda x, w, b: native_layer_norm(x, w, b, 1e-3),
        (drawn(2, 5), drawn(5, seed=1), drawn(5, seed=2)),
    ),
    "layer norm without a shift": (lambda x, w: native_layer_norm(x, w, None, 1e-3), (drawn(2, 5), drawn(5, seed=1))),
    **{name: (lambda g, x, name=name: native_gated(name, g, x), (drawn(2, 5), drawn(2, 5, seed=1))) for name in GATES},
    "rotation": (
        lambda x, c, s: native_rotation(x, c, s, 2, traditional=False),
        (drawn(2, 3, 5), drawn(3, 5, seed=1), drawn(3, 5, seed=2)),
    ),
    "traditional": (
        lambda x, c, s: native_rotation(x, c, s, 2, traditional=True),
        (drawn(2, 3, 5), drawn(3, 5, seed=1), drawn(3, 5, seed=2)),
    ),
    "convolution": (
        lambda x, s, w, b: native_convolution(x, s, w, b, 1),
        (drawn(2, 7, 3), drawn(2, 2, 3, seed=1), drawn(3, 3, seed=2), drawn(3, seed=3)),
    ),
    "activation": (lambda x: native_activated("silu", x), (drawn(2, 5),)),
    "attention": (
        lambda *each: native_attention(*each[:3], 0.3, *each[3:]),
        (drawn(2, 4, 1, 5), drawn(2, 2, 7, 5, seed=1), drawn(2, 2, 7, 3, seed=2), drawn(4, seed=3)),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_derivatives(name: str) -> None:
    """Of every argument: by finite differences of the pass itself, and the same forwards and backwards."""
    call, arguments = CALLS[name]
    weights = drawn(*call(*arguments).shape, seed=9)

    def goal(*each: mx.array) -> mx.array:
        return (call(*each) * weights).sum()

    _, gradients = mx.vjp(goal, list(arguments), [mx.array(1.0)])
    for i, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        direction, step = drawn(*argument.shape, seed=7 + i), 3e-3

        def moved(by: float, i: int = i, direction: mx.array = direction) -> float:
            return goal(*(each + by * direction if j == i else each for j, each in enumerate(arguments))).item()

        slope = (moved(step) - moved(-step)) / (2 * step)
        backwards = (gradient * direction).sum().item()
        tangents = [direction if j == i else mx.zeros_like(each) for j, each in enumerate(arguments)]
        forwards = mx.jvp(goal, list(arguments), tangents)[1][0].item()
        assert backwards == pytest.approx(slope, rel=2e-2, abs=2e-3)
        assert forwards == pytest.approx(backwards, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_vmap(name: str) -> None:
    call, arguments = CALLS[name]
    several = [mx.stack([each, 2 * each]) for each in arguments]
    y = mx.vmap(call)(*several)
    for i in range(2):
        assert mx.array_equal(y[i], call(*(each[i] for each in several)))
    first = mx.vmap(call, in_axes=(0, *[None] * (len(arguments) - 1)))(several[0], *arguments[1:])
    assert mx.array_equal(first[1], call(several[0][1], *arguments[1:]))


@typed
@pytest.mark.parametrize("traditional", [False, True])
def test_steps_of_attention_are_those_of_the_reference(dtype: mx.Dtype, traditional: bool) -> None:
    """Norms of heads, rotation and attention of every token after the other, and that passes are what computes it."""
    layer = Attention(32, 4, num_kv_heads=2, rope=RopeOptions(fraction=0.5, traditional=traditional))
    layer.set_dtype(dtype)
    x = drawn(2, 9, 32, dtype=dtype)

    def steps() -> mx.array:
        cache = KVCache()
        return mx.concatenate([layer(x[:, i : i + 1], cache=cache)[0] for i in range(9)], axis=1)

    y = steps()
    with reference_implementations():
        truth = steps()
    assert mx.abs(y - truth).max() <= 4 * TYPES[dtype] * mx.abs(truth).max()


def test_many_numbers_other_types_and_prompts_are_left_to_mlx() -> None:
    many = mx.zeros((1, 2 * _passes._FEW))
    assert native_layer_norm(many, mx.ones(2 * _passes._FEW), None, 1e-5) is None
    assert native_norm(many.astype(mx.bfloat16), mx.ones(2 * _passes._FEW), 1e-5) is None
    assert native_gated("silu", many.astype(mx.bfloat16), many.astype(mx.bfloat16)) is None
    assert native_norm(mx.zeros((1, 4), mx.int32), mx.ones(4), 1e-5) is None
    q, k = mx.zeros((1, 1, 2, 4)), mx.zeros((1, 1, 2, 4))
    assert native_attention(q, k, k, 1.0, None) is None
    assert native_attention(q[:, :, :1], (k, k, k), (k, k, k), 1.0, None) is None
    with reference_implementations():
        assert native_norm(mx.zeros((1, 4)), mx.ones(4), 1e-5) is None
    assert native_gated("gelu", mx.zeros(4), mx.zeros(4)) is None
    assert native_gated("silu", mx.zeros(4), mx.zeros(4, mx.bfloat16)) is None


def test_what_does_not_fit_is_refused(module: Any) -> None:
    x = mx.zeros((1, 2, 1, 4))
    for call in (
        lambda: module.rms_norm(x, mx.ones(3), 1e-5),
        lambda: module.rms_norm(x, mx.ones(4, mx.int32), 1e-5),
        lambda: module.layer_norm(x, mx.ones(3), None, 1e-5),
        lambda: module.layer_norm(x, mx.ones(4), mx.ones(3), 1e-5),
        lambda: module.gated(x, x[..., :3], "silu"),
        lambda: module.gated(x, x, "relu"),
        lambda: module.rotation(x, mx.ones((2, 4)), mx.ones((1, 4)), 2),
        lambda: module.rotation(x, mx.ones((1, 4)), mx.ones((1, 4)), 3),
        lambda: module.rotation(x, mx.ones((1, 4)), mx.ones((1, 4)), 1 << 30),
        lambda: module.attention_of_one(x, x[..., :3], x, 1.0),
        lambda: module.attention_of_one(x, x[:, :, :0], x[:, :, :0], 1.0),
        lambda: module.attention_of_one(x, mx.zeros((1, 3, 1, 4)), mx.zeros((1, 3, 1, 4)), 1.0),
        lambda: module.attention_of_one(x, x, x, 1.0, mx.zeros(3)),
    ):
        with pytest.raises(ValueError, match="should"):
            call()
