"""How an edited model learns unless it is said otherwise; imports no mlx."""

from __future__ import annotations

from typing import Final

from axon_compose.learn.recipe import Recipe

__all__ = ["RECIPE", "STEPS"]

#: A tenth of the learning rate of training from the start, and no pull to zero.
RECIPE: Final = Recipe(learning_rate=3e-4, weight_decay=0.0)
#: Of both stages together.
STEPS: Final = 300
