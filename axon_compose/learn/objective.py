"""What training makes small, and which figures of it are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx

from axon_compose.learn.balance import Balance
from axon_compose.learn.loss import cross_entropy
from axon_compose.learn.ranks import Ranks
from axon_compose.learn.recipe import Recipe
from axon_compose.plan import Plan

__all__ = ["NextTokens", "Objective"]

#: `(model, tokens, targets)` to the scalar that is made small, and figures to show, `loss` among them. All are sums
#: over the targets that count: the trainer divides by their number, over all parts of a step.
Objective: TypeAlias = Callable[[Any, mx.array, mx.array], tuple[mx.array, dict[str, mx.array]]]


class NextTokens:
    """The cross entropy with what a recipe adds to it: z-loss, balanced experts, segments that are computed again.

    Args:
        plan: The model.
        recipe: Its options `z_loss`, `balance_loss`, `balance_rate` and `segment`.
        ranks: The processes that a batch is divided over; this one alone unless given.

    Attributes:
        balance: What evens out the load of experts; false in models without any.
    """

    def __init__(self, plan: Plan, recipe: Recipe, ranks: Ranks | None = None) -> None:
        self.recipe = recipe
        self.balance = Balance(plan, recipe.balance_loss, recipe.balance_rate, ranks)

    def __call__(self, model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """See `Objective`."""
        h, uneven, loads = self.hidden(model, tokens, targets)
        total, figures = self.of(model, h, targets)
        return (total if uneven is None else total + uneven), figures | loads

    def hidden(
        self, model: Any, tokens: mx.array, targets: mx.array
    ) -> tuple[mx.array, mx.array | None, dict[str, mx.array]]:
        """Hidden states (B, L, D); what uneven experts cost, where there are any; and the load of these."""
        h, values = model.observed(tokens, routing=bool(self.balance), segment=self.recipe.segment)
        return (h, *self.balance.figures(values, targets)) if self.balance else (h, None, {})

    def of(self, model: Any, h: mx.array, targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The loss of the text alone, and what is shown of it."""
        losses = cross_entropy(model, h, targets, z_loss=self.recipe.z_loss)
        return losses.total, {"loss": losses.nll} | ({"z": losses.z} if self.recipe.z_loss else {})
