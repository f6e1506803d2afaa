"""What training makes small, and which figures of it are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx

from axon_compose.learn.loss import cross_entropy

__all__ = ["Objective", "next_token_objective"]

#: `(model, tokens, targets)` to the scalar that is made small, and figures to show, `loss` among them. All are sums
#: over the targets that count: the trainer divides by their number, over all parts of a step.
Objective: TypeAlias = Callable[[Any, mx.array, mx.array], tuple[mx.array, dict[str, mx.array]]]


def next_token_objective(model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
    """The cross entropy alone; see `Objective`."""
    losses = cross_entropy(model, model.hidden(tokens), targets)
    return losses.total, {"loss": losses.nll}
