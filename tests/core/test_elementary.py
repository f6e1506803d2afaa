"""Elementary functions against float64 NumPy: values, ends of the range, gradients; and MLX's own."""

from math import erfc, pi, sqrt

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from axon_compose.model import exponential
from axon_core.elementary import exp, gelu, gelu_tanh, normal_share, relu2, sigmoid, silu, softplus, tanh

MANY = 3 * exponential._MANY
#: Two roundings of the result (6e-8 each), one of the argument, and the polynomial.
CLOSE = 5e-7


def true_sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def true_share(x):
    return np.vectorize(erfc)(-x / sqrt(2)) / 2


def density(x):
    return np.exp(-x * x / 2) / sqrt(2 * pi)


def inner(x):
    return 2 * sqrt(2 / pi) * (x + 0.044715 * x**3)


def slope_of_gelu_tanh(x):
    share, steepness = true_sigmoid(inner(x)), 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)
    return share + x * share * true_sigmoid(-inner(x)) * steepness


CASES = {
    "exp": (exp, np.exp, np.exp),
    "sigmoid": (sigmoid, true_sigmoid, lambda x: true_sigmoid(x) * true_sigmoid(-x)),
    "silu": (silu, lambda x: x * true_sigmoid(x), lambda x: true_sigmoid(x) * (1 + x * true_sigmoid(-x))),
    "softplus": (softplus, lambda x: np.logaddexp(x, 0), true_sigmoid),
    "tanh": (tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "normal_share": (normal_share, true_share, density),
    "gelu": (gelu, lambda x: x * true_share(x), lambda x: true_share(x) + x * density(x)),
    "gelu_tanh": (gelu_tanh, lambda x: x * true_sigmoid(inner(x)), slope_of_gelu_tanh),
    "relu2": (relu2, lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0)),
}
PLAIN = {
    "exp": mx.exp,
    "sigmoid": mx.sigmoid,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": mx.tanh,
    "normal_share": lambda x: 0.5 * (1 + mx.erf(x / sqrt(2))),
    "gelu": nn.gelu,
    "gelu_tanh": nn.gelu_approx,
    "relu2": nn.relu2,
}
#: Those that fall as exp(-x^2 / 2): an argument of twenty, rounded, moves the result by a multiple of CLOSE.
STEEP = {"normal_share": 8, "gelu": 8, "gelu_tanh": 8}


@pytest.fixture(autouse=True)
def on_the_cpu():
    with mx.stream(mx.cpu):
        before = mx.default_device()
        mx.set_default_device(mx.cpu)
        yield
        mx.set_default_device(before)


def numbers(name, most):
    low, high = -most, 0.0 if name == "exp" else most
    return mx.random.uniform(low, high, (3, MANY // 3), key=mx.random.key(0))


@pytest.mark.parametrize("most", [1e-3, 1.0, 20.0, 87.0])
@pytest.mark.parametrize("name", CASES)
def test_values(name, most):
    function, true, _ = CASES[name]
    x = numbers(name, most)
    got, wanted = np.array(function(x)), true(np.array(x, dtype=np.float64))
    if name in STEEP:
        size = 1 if name == "normal_share" else np.abs(np.array(x))
        assert (np.abs(got - wanted) <= 0.6 * CLOSE * size).all()
        got, wanted = (np.where(np.array(x) > -5, values, 0) for values in (got, wanted))
    np.testing.assert_allclose(got, wanted, rtol=STEEP.get(name, 1) * CLOSE, atol=1e-37)


@pytest.mark.parametrize("name", CASES)
def test_ends_of_the_range(name):
    """What MLX gives at zero, at infinity and for what is no number; below the least normal number it is zero."""
    function, plain = CASES[name][0], PLAIN[name]
    edges = [-np.inf, -1e30, -200.0, -88.5, -0.0, 0.0, np.nan]
    edges += [] if name == "exp" else [88.5, 200.0, np.inf]
    x = mx.concatenate([mx.array(edges), mx.full((MANY,), -1.0)])
    got, wanted = np.array(function(x))[: len(edges)], np.array(plain(x))[: len(edges)]
    if name in ("silu", "softplus"):  # MLX has nan in both for an end that has a limit
        wanted = np.where(np.isinf(edges) & np.isnan(wanted), got, wanted)
    np.testing.assert_allclose(got, wanted, rtol=CLOSE, atol=1e-37)
    assert np.isnan(got[6])
    assert got[2] == got[3] == (-1.0 if name == "tanh" else 0.0)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    function, _, slope = CASES[name]
    x = numbers(name, 20.0)
    weight = mx.random.normal(x.shape, key=mx.random.key(1))
    got = mx.grad(lambda x: (weight * function(x)).sum())(x)
    wanted = np.array(weight, dtype=np.float64) * slope(np.array(x, dtype=np.float64))
    # 1 - y loses what y has rounded away: an absolute error.
    np.testing.assert_allclose(np.array(got), wanted, rtol=2 * CLOSE, atol=2e-6)


@pytest.mark.parametrize("name", ["sigmoid", "silu", "softplus"])
def test_second_gradients(name):
    function, plain = CASES[name][0], PLAIN[name]
    x = numbers(name, 4.0)
    got, wanted = (mx.grad(lambda x, f=f: mx.grad(lambda x: f(x).sum())(x).sum())(x) for f in (function, plain))
    assert mx.allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_inside_of_other_transformations(name):
    function = CASES[name][0]
    x = numbers(name, 5.0)
    wanted = function(x)
    assert mx.allclose(mx.compile(lambda x: 2 * function(x))(x), 2 * wanted, rtol=1e-6)
    assert mx.allclose(mx.vmap(function)(x), wanted, rtol=1e-6)
    # By MLX's own, for there is little along that axis.
    assert mx.allclose(
        mx.vmap(function, in_axes=1, out_axes=1)(x), wanted, rtol=1e-5, atol=5e-7 if name in STEEP else 1e-8
    )


@pytest.mark.parametrize("name", CASES)
def test_views(name):
    """Half of a projection and a transpose give what copies of them give."""
    function, x = CASES[name][0], numbers(name, 5.0)
    for view in (mx.split(mx.concatenate([x, x], axis=-1), 2, axis=-1)[1], x.T, x[:, ::2]):
        assert mx.array_equal(function(view), function(mx.contiguous(view)))


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_to_mlx(name):
    function, plain = CASES[name][0], PLAIN[name]
    few, x = numbers(name, 5.0)[:, :8], numbers(name, 5.0)
    assert mx.array_equal(function(few), plain(few))
    for dtype in (mx.bfloat16, mx.float16):
        assert mx.array_equal(function(x.astype(dtype)), plain(x.astype(dtype)))
    assert function(x).dtype == mx.float32
