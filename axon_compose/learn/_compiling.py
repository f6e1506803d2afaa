"""Whether MLX compiles the step of a run."""

from __future__ import annotations

from typing import Final

import mlx.core as mx

from axon_compose.learn.budget import Budget

__all__ = ["pays"]

#: From this number of steps on, a compiled step (0.75 of the processor time, measured on a hybrid of 3.4M parameters)
#: is worth the making of its kernels on the CPU. A minute is taken for sixty steps.
_MANY_STEPS: Final = 500


def pays(budget: Budget, tokens_of_step: int) -> bool:
    """Whether a run is long enough to compile its step: on the CPU the kernels take up to a minute, at first."""
    if mx.default_device() != mx.cpu:
        return True
    steps = {"steps": 1.0, "tokens": 1 / tokens_of_step, "minutes": 60.0}.get(budget.unit, 0.0) * budget.amount
    return steps >= _MANY_STEPS
