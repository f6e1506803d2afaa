"""How decays and step sizes of state spaces begin: as in the code of Dao and Gu 2024, "Mamba-2"."""

from __future__ import annotations

from math import log

import mlx.core as mx

__all__ = ["first_rates", "first_steps"]


def first_rates(shape: tuple[int, ...]) -> mx.array:
    """Logarithms of decay rates that are spread evenly from 1 to 16."""
    return mx.log(mx.random.uniform(1.0, 16.0, shape))


def first_steps(shape: tuple[int, ...]) -> mx.array:
    """Biases whose softplus, the step size, is spread evenly in its logarithm from 0.001 to 0.1."""
    dt = mx.exp(mx.random.uniform(log(1e-3), log(1e-1), shape))
    return dt + mx.log(-mx.expm1(-dt))
