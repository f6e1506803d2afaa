"""Muon for matrices, also for those of experts, with the weight decay and the step size of its papers."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
import mlx.optimizers as optim

from axon_compose.learn.ranks import Ranks

__all__ = ["Muon", "orthogonal"]

#: Coefficients of the polynomial that takes singular values to near 1, and how often it is applied.
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_STEPS: Final = 5
#: Root mean square of a step, as that of AdamW usually is.
_SIZE: Final = 0.2


class Muon(optim.Muon):  # type: ignore[misc]
    r"""Momentum whose matrix is made orthogonal (Jordan et al. 2024), as large as a step of AdamW (Liu et al. 2025).

    With the gradient G of an (m, n) matrix W, momentum :math:`\mu`, learning rate :math:`\eta` and weight decay
    :math:`\lambda`:

    .. math::
        M \leftarrow \mu M + (1 - \mu) G, \qquad O = \mathrm{orthogonal}((1 - \mu) G + \mu M), \qquad
        W \leftarrow (1 - \eta \lambda) W - 0.2\, \eta \sqrt{\max(m, n)}\; O

    That is "Muon is Scalable for LLM Training" (arXiv:2502.16982). It differs from `mlx.optimizers.Muon`, whose
    learning rate has another scale, which adds :math:`\lambda W` to the gradient, where making it orthogonal takes the
    size of the pull away, and which makes one matrix of those of all experts. Here arrays of three axes are matrices in
    a row, and each is made orthogonal by itself.

    Args:
        learning_rate: :math:`\eta`, the same as for AdamW.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        rows_of: The processes that the rows of all matrices are divided over; each makes them orthogonal as a whole.
    """

    def __init__(
        self, learning_rate: float, momentum: float = 0.95, weight_decay: float = 0.0, rows_of: Ranks | None = None
    ) -> None:
        super().__init__(learning_rate, momentum, weight_decay)
        self._ranks = rows_of or Ranks()

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        """The parameter after a step; see the class."""
        state["v"] = self.momentum * state["v"] + (1 - self.momentum) * gradient
        whole = self._ranks.joined(self.momentum * state["v"] + (1 - self.momentum) * gradient)
        moved = self._ranks.mine(orthogonal(whole))
        rate = self.learning_rate.astype(parameter.dtype)
        kept = parameter * (1 - rate * self.weight_decay) if self.weight_decay else parameter
        after: mx.array = kept - rate * (_SIZE * max(whole.shape[-2:]) ** 0.5) * moved
        return after


def orthogonal(matrices: mx.array) -> mx.array:
    """Matrices (..., m, n) with the same singular vectors, and singular values near 1 by five Newton-Schulz steps."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.swapaxes(-1, -2) if tall else matrices
    x = x / (mx.sqrt((x * x).sum(axis=(-2, -1), keepdims=True)) + 1e-7)
    for _ in range(_STEPS):
        squares = x @ x.swapaxes(-1, -2)
        x = a * x + (b * squares + c * (squares @ squares)) @ x
    return x.swapaxes(-1, -2) if tall else x
