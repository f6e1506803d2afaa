r"""The exponential of numbers that are at most zero, at the speed of memory on the CPU.

MLX evaluates the exponential one number at a time on the CPU. Here it is a polynomial that the C++ compiler below
`mx.compile` turns into vector instructions. For x at most 0, with n the integer next to :math:`x / \ln 2`,

.. math::
    e^x = 2^n \cdot e^r, \qquad r = (x - n c_1) - n c_2, \qquad c_1 + c_2 = \ln 2

where :math:`n c_1` is exact (Cody and Waite 1980, "Software Manual for the Elementary Functions", chapter 6),
:math:`e^r` is its Taylor polynomial of degree 6, and :math:`2^n` is put together from the bits of a float.

Measured on two shared x86-64 cores (mlx 0.32 on the CPU): 1.9 ns a number and a relative error of 2.6e-7 at most, where
MLX takes 15 ns and errs by 5e-7 (4e-6 near -87). A result below the smallest normal number is zero here. Without a C++
compiler the kernels run operation by operation, about as fast as MLX's.
"""

from __future__ import annotations

from typing import Final

import mlx.core as mx

__all__ = ["exp_of_minus_abs", "exp_up_to", "is_worth_it"]

#: Numbers from which on several kernels are faster than one slow one.
_MANY: Final = 4096
#: Here n is -127, whose bits are those of zero: the exponential would not be a normal float.
_LEAST: Final = -88.0
#: Adding this drops the bits after the binary point: what is left is the nearest integer.
_ROUND: Final = 1.5 * 2**23
_LOG2_E: Final = 1.4426950408889634
_LN2_HIGH: Final = 0.693359375
_LN2_LOW: Final = -2.12194440e-4


def is_worth_it(x: mx.array) -> bool:
    """Whether it is faster than MLX's own: for many numbers of float32 on the CPU."""
    return x.size >= _MANY and x.dtype == mx.float32 and mx.default_device() == mx.cpu


def exp_of_minus_abs(x: mx.array) -> mx.array:
    """`exp(-|x|)` of float32, any shape; no gradient can be taken."""
    # Two kernels, for a kernel is cut where it becomes too deep, at places that cost more.
    r, bits = _reduced(x)
    return _raised(r, bits.view(mx.float32))


def exp_up_to(x: mx.array, highest: mx.array, factor: mx.array | None = None) -> mx.array:
    """`exp(x - highest) * factor` of float32, where none of `x` is above `highest`; no gradient can be taken.

    Args:
        x: Any shape.
        highest: Broadcasts with `x`.
        factor: The same; 1 unless given.
    """
    r, bits = _reduced_below(x, highest)
    power = bits.view(mx.float32)
    return _raised(r, power) if factor is None else _raised_times(r, power, factor)


@mx.compile
def _reduced(x: mx.array) -> tuple[mx.array, mx.array]:
    """The remainder r of -|x|, and the bits of its power of two."""
    return _parts(-mx.abs(x))


@mx.compile
def _reduced_below(x: mx.array, highest: mx.array) -> tuple[mx.array, mx.array]:
    return _parts(x - highest)


def _parts(x: mx.array) -> tuple[mx.array, mx.array]:
    x = mx.where(x < _LEAST, _LEAST, x)  # not mx.maximum, which the compiler does not vectorise
    n = (x * _LOG2_E + _ROUND) - _ROUND
    return (x - n * _LN2_HIGH) - n * _LN2_LOW, (n.astype(mx.int32) + 127) << 23


@mx.compile
def _raised(r: mx.array, power: mx.array) -> mx.array:
    return _series(r) * power


@mx.compile
def _raised_times(r: mx.array, power: mx.array, factor: mx.array) -> mx.array:
    return _series(r) * power * factor


def _series(r: mx.array) -> mx.array:
    r2 = r * r
    high = (1 / 24 + 1 / 120 * r) + 1 / 720 * r2
    return (1.0 + r) + r2 * ((0.5 + 1 / 6 * r) + r2 * high)
