"""xIELU: an activation that grows like a square above 0 and bends like an exponential below it."""

from __future__ import annotations

import math
from typing import Final

import mlx.core as mx
import mlx.nn as nn

__all__ = ["XIELU"]

_BETA: Final = 0.5
_EPS: Final = -1e-6
#: Both slopes of a new layer.
_ALPHA: Final = 0.8


class XIELU(nn.Module):
    """`a x^2 + b x` above 0, `c (exp(min(x, e)) - 1 - x) + b x` below.

    `a` is the softplus of `alpha_p`, `c` is b plus that of `alpha_n`. These two numbers are learned; the constants b
    and e are kept with the weights, as checkpoints have them, and no gradient moves them.
    Source: Huang and Schlag 2024 (arXiv:2411.13010).
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha_p = mx.array([math.log(math.expm1(_ALPHA))])
        self.alpha_n = mx.array([math.log(math.expm1(_ALPHA - _BETA))])
        self.beta, self.eps = mx.array(_BETA), mx.array(_EPS)
        self.freeze(recurse=False, keys=["beta", "eps"])

    def __call__(self, x: mx.array) -> mx.array:
        """Activate `x`, of any shape."""
        beta, eps = mx.stop_gradient(self.beta), mx.stop_gradient(self.eps)
        # Softplus of the slopes. Not nn.softplus, which is compiled, and what is compiled cannot be exported.
        above, below = mx.logaddexp(self.alpha_p, 0.0), beta + mx.logaddexp(self.alpha_n, 0.0)
        bent = (mx.expm1(mx.minimum(x, eps)) - x) * below
        return mx.where(x > 0, above * x * x, bent) + beta * x
