"""How an edited model learns unless it is said otherwise; imports no mlx."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, isnan, sqrt
from typing import Final

from axon_compose.learn.recipe import Recipe

__all__ = ["RECIPE", "STEPS", "recipe_of"]

#: A tenth of the learning rate of training from the start, and no pull to zero.
RECIPE: Final = Recipe(learning_rate=3e-4, weight_decay=0.0)
#: Of both stages together.
STEPS: Final = 300
#: How much faster a layer learns by itself, where no other one has to follow.
_ALONE: Final = 10.0
#: The root mean square of weights for which the recipe's learning rate is meant, that of SmolLM2-135M's matrices.
_SIZE: Final = 0.2
#: A divergence that is none but for roundings.
_LEAST: Final = 1e-6


def recipe_of(recipe: Recipe, stage: str, divergence: float, size: float = _SIZE) -> Recipe:
    r"""With the learning rate of a stage, by how far an edited model is from its source and how large its weights are.

    A step of AdamW moves each weight by about the learning rate, whatever the gradient, and near its source the
    divergence D of a model grows with the square of the way that its weights have gone. So the steps are as
    :math:`\sqrt{\min(D, 1)}`: what an edit has hardly changed is not moved by more than that.

    Args:
        recipe: With the learning rate for predictions that are a nat or more from the source's.
        stage: `layers`, at ten times that rate, or `logits`.
        divergence: D, in nats a token; NaN for a model that has none, whose first evaluation says where it breaks.
        size: The root mean square of the matrices that learn; 0 where all are zero, which is no size.
    """
    known = 1.0 if isnan(divergence) else min(max(divergence, _LEAST), 1.0)
    relative = size / _SIZE if size > 0 and isfinite(size) else 1.0
    factor = (_ALONE if stage == "layers" else 1.0) * sqrt(known) * relative
    return replace(recipe, learning_rate=float(f"{recipe.learning_rate * factor:.2g}"))
