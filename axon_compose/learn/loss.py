"""How far a model is from the targets: what training makes small, and what of it is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx
import mlx.nn as nn

from axon_compose.learn.batches import LEFT_OUT

__all__ = ["Objective", "cross_entropy_sum", "next_token_objective"]

#: `(model, tokens, targets)` to the scalar that is made small, and figures to show, `loss` among them. All are sums
#: over the targets that count: the trainer divides by their number, over all parts of a step.
Objective: TypeAlias = Callable[[Any, mx.array, mx.array], tuple[mx.array, dict[str, mx.array]]]


def next_token_objective(model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
    """The cross entropy alone; see `Objective`."""
    loss = cross_entropy_sum(model, tokens, targets)
    return loss, {"loss": loss}


def cross_entropy_sum(model: Any, tokens: mx.array, targets: mx.array) -> mx.array:
    """The sum over all targets that count of the cross entropy, in float32.

    Args:
        model: Tokens to logits.
        tokens: (B, L).
        targets: (B, L), `LEFT_OUT` where nothing is asked.
    """
    logits = model(tokens).astype(mx.float32)
    counts = targets != LEFT_OUT
    losses = nn.losses.cross_entropy(logits, mx.where(counts, targets, 0), reduction="none")
    return mx.where(counts, losses, 0).sum()
