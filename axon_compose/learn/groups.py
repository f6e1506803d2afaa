"""Which parameters move how: one optimiser of `mlx.optimizers` for each group."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from axon_compose.learn.recipe import Recipe

__all__ = ["make_optimizer", "set_learning_rate"]


def make_optimizer(model: Any, recipe: Recipe) -> optim.MultiOptimizer:
    """The optimiser of a model, its state made: AdamW, with weight decay for what has two axes and more.

    Args:
        model: With the parameters that are to move.
        recipe: Its options.
    """

    def adamw(weight_decay: float) -> optim.AdamW:
        return optim.AdamW(
            recipe.learning_rate,
            betas=[recipe.beta1, recipe.beta2],
            eps=recipe.epsilon,
            weight_decay=weight_decay,
            bias_correction=True,
        )

    optimizer = optim.MultiOptimizer([adamw(recipe.weight_decay), adamw(0.0)], [_decays])
    optimizer.init(model.trainable_parameters())
    return optimizer


def set_learning_rate(optimizer: Any, value: float) -> None:
    """Set the learning rate of all groups, before a step."""
    optimizer.learning_rate = mx.array(value, mx.float32)


def _decays(path: str, value: mx.array) -> bool:
    return value.ndim >= 2
