r"""Exponentials and what is made of them, in kernels that run at the speed of memory on the CPU.

MLX evaluates the exponential one number at a time on the CPU; `axon_compose.model.exponential` has it in vector
instructions. The others follow from :math:`e = e^{-|x|}`:

.. math::
    \sigma(x) = \frac{1 \text{ or } e}{1 + e}, \qquad \mathrm{softplus}(x) = \max(x, 0) + \log(1 + e)

and :math:`\log(1 + e) = 2 \,\mathrm{artanh}(e / (2 + e))` by its series. The share of the normal distribution below x
is made of :math:`e^{-x^2 / 2}` times a polynomial in :math:`1 / (1 + q |x|)`, and the hyperbolic tangent is
:math:`(1 - e^2) / (1 + e^2)`, near zero a polynomial; both have the least possible largest relative error.

Measured on two shared x86-64 cores (mlx 0.32 on the CPU), ns per number, and the largest relative error:

                here   error    MLX    error
    exp          1.9   2.6e-7   15     5e-7 (4e-6 near -87)
    sigmoid      2.3   3.3e-7   20     1.7e-6
    silu         2.3   3.8e-7   19     1.7e-6
    softplus     3.1   3.8e-7   27     1.7e-6
    tanh         2.9   1.6e-7   17     1.6e-7
    gelu         2.5   3e-7     26     3e-7     of x
    gelu_tanh    1.7   2e-7     27     2e-7     of x
    relu2        0.4   6e-8     5      6e-8

A result below the smallest normal number is zero here. Small arrays, other types and GPUs take MLX's own functions, for
there is nothing to gain. Without a C++ compiler the kernels run operation by operation, about as fast as MLX's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import pi, sqrt
from typing import Any, Final, cast

import mlx.core as mx
import mlx.nn as nn

from axon_compose.model.exponential import exp_of_minus_abs, is_worth_it
from axon_core.cpu import fast
from axon_core.kernels import native_activated

__all__ = ["exp", "gelu", "gelu_tanh", "normal_share", "relu2", "sigmoid", "silu", "softplus", "swiglu", "tanh"]

Function = Callable[[mx.array], mx.array]

#: The q above, and up to where the tangent is a polynomial.
_Q: Final = 0.305
_NEAR: Final = 0.55
#: The usual approximation of gelu is `x * sigmoid(LINEAR x + CUBIC x^3)`.
_LINEAR: Final = 2 * sqrt(2 / pi)
_CUBIC: Final = 0.044715 * _LINEAR


@mx.compile
def _share(x: mx.array, e: mx.array) -> mx.array:
    return mx.where(x < 0, e, 1.0) / (1.0 + e)


@mx.compile
def _rectified(x: mx.array, e: mx.array) -> mx.array:
    z = e / (2.0 + e)
    z2 = z * z
    z4 = z2 * z2
    series = (1.0 + 1 / 3 * z2) + z4 * ((1 / 5 + 1 / 7 * z2) + z4 * ((1 / 9 + 1 / 11 * z2) + 1 / 13 * z4))
    return mx.where(x > 0, x, 0.0) + 2.0 * z * series


@mx.compile
def _half_square(x: mx.array) -> mx.array:
    return 0.5 * (x * x)


@mx.compile
def _nearness(x: mx.array) -> mx.array:
    return 1.0 / (1.0 + _Q * mx.abs(x))


# The compiler makes vector instructions of a choice between two constants, not of one between two terms.
@mx.compile
def _below(x: mx.array, e: mx.array, t: mx.array) -> mx.array:
    """The share of the normal distribution below x, of e = exp(-x^2 / 2) and t = 1 / (1 + q |x|)."""
    t2 = t * t
    low = (0.1216397328 + 0.1224668149 * t) + t2 * (0.1034208803 + 0.1210216308 * t)
    high = (-0.0379767364 + 0.1857168019 * t) + t2 * (-0.1529882534 + 0.0366991762 * t)
    tail = (low + t2 * t2 * high) * (t * e)
    return mx.where(x < 0, 0.0, 1.0) + mx.where(x < 0, 1.0, -1.0) * tail


@mx.compile
def _near_zero(x: mx.array) -> mx.array:
    return mx.where(mx.abs(x) < _NEAR, x, 0.0)


@mx.compile
def _tangent(x: mx.array, e: mx.array, near: mx.array) -> mx.array:
    """tanh(x) of e = exp(-2 |x|), and of x where that is near zero, 0 elsewhere."""
    s = near * near
    series = (-0.3333295750 + 0.1332094188 * s) + s * s * (-0.0526841420 + 0.0164587552 * s)
    far = mx.where(mx.abs(x) < _NEAR, 0.0, 1.0) * mx.where(x < 0, -1.0, 1.0)
    return near * (1.0 + s * series) + far * ((1.0 - e) / (1.0 + e))


@mx.compile
def _inner(x: mx.array) -> mx.array:
    return x * (_LINEAR + _CUBIC * (x * x))


@mx.compile
def _times_share(y: mx.array, x: mx.array, e: mx.array) -> mx.array:
    return y * (mx.where(x < 0, e, 1.0) / (1.0 + e))


def _worth(x: mx.array) -> bool:
    return is_worth_it(x) and fast()


def _in_order(x: mx.array) -> mx.array:
    """The same, copied if it is a view such as half of a projection: there kernels take five times as long."""
    return x.flatten().reshape(x.shape)


def _or_plain(plain: Function, slope: Callable[[mx.array, mx.array], mx.array]) -> Callable[[Function], Function]:
    """Make a form for many float32 numbers on the CPU a function that takes MLX's own form for all others.

    Args:
        plain: MLX's.
        slope: The derivative at (x, y).
    """

    def decorated(quick: Function) -> Function:
        shaped = mx.custom_function(quick)

        @shaped.vjp  # type: ignore[untyped-decorator, unused-ignore]
        def _vjp(x: mx.array, cotangent: mx.array, y: mx.array) -> mx.array:
            return cotangent * slope(x, y)

        @shaped.vmap  # type: ignore[untyped-decorator, unused-ignore]
        def _vmap(x: mx.array, axis: Any) -> tuple[mx.array, Any]:
            return cast("mx.array", shaped(x)), axis

        @wraps(quick)
        def function(x: mx.array) -> mx.array:
            return cast("mx.array", shaped(_in_order(x))) if _worth(x) else plain(x)

        return function

    return decorated


@_or_plain(mx.exp, lambda x, y: y)
def exp(x: mx.array) -> mx.array:
    """The exponential of numbers that are at most zero, such as logarithms of decays.

    Args:
        x: Any shape; minus infinity gives zero. What it gives for a positive number is not defined.
    """
    return exp_of_minus_abs(x)


@_or_plain(mx.sigmoid, lambda x, y: y * (1 - y))
def sigmoid(x: mx.array) -> mx.array:
    """`1 / (1 + exp(-x))` of any shape."""
    return _share(x, exp_of_minus_abs(x))


def silu(x: mx.array) -> mx.array:
    """`x * sigmoid(x)` of any shape."""
    if not _worth(x):
        return nn.silu(x)
    # In two steps, for the backward pass has use for the sigmoid.
    return x * sigmoid(x) if (y := native_activated("silu", x)) is None else y


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`silu(gate) * x` of one shape."""
    return silu(gate) * x if _worth(gate) else _swiglu(gate, x)


@mx.compile
def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return nn.silu(gate) * x


@_or_plain(nn.softplus, lambda x, y: sigmoid(x))
def softplus(x: mx.array) -> mx.array:
    """`log(1 + exp(x))` of any shape."""
    return _rectified(x, exp_of_minus_abs(x))


@_or_plain(mx.tanh, lambda x, y: 1 - y * y)
def tanh(x: mx.array) -> mx.array:
    """The hyperbolic tangent of any shape."""
    return _tangent(x, exp_of_minus_abs(x + x), _near_zero(x))


@_or_plain(lambda x: 0.5 * (1 + mx.erf(x / sqrt(2))), lambda x, y: exp(-_half_square(x)) / sqrt(2 * pi))
def normal_share(x: mx.array) -> mx.array:
    """The share of the standard normal distribution that is below each number of any shape."""
    return _below(x, exp_of_minus_abs(_half_square(x)), _nearness(x))


def gelu(x: mx.array) -> mx.array:
    """`x * normal_share(x)` of any shape."""
    return x * normal_share(x) if _worth(x) else nn.gelu(x)


def _slope_of_gelu_tanh(x: mx.array, _: mx.array) -> mx.array:
    share = sigmoid(_inner(x))
    return share + x * share * (1 - share) * (_LINEAR + 3 * _CUBIC * x * x)


# Not nn.gelu_fast_approx, which is the sigmoid form.
@_or_plain(nn.gelu_approx, _slope_of_gelu_tanh)
def gelu_tanh(x: mx.array) -> mx.array:
    """`x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` of any shape."""
    inner = _inner(x)
    return _times_share(x, inner, exp_of_minus_abs(inner))


def relu2(x: mx.array) -> mx.array:
    """`max(x, 0)^2` of any shape."""
    # Of both in one kernel the compiler makes no vector instructions.
    return mx.square(nn.relu(x)) if _worth(x) else nn.relu2(x)
