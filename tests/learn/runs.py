"""Short runs of a small model, for the tests of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.learn import Budget, Cadence, Outcome, Recipe, train
from axon_compose.learn.tasks import Task
from tests.helpers import described

RECIPE = Recipe(batch=2, length=16, learning_rate=1e-2)
STEPS = 8


def go(
    text: Path | Task, out: Path, *, steps: int = STEPS, stack: str = "a s", components: Any = None, **more: Any
) -> Outcome:
    """Train attention and a state space on a text or a task, with nothing between the steps unless it is asked for."""
    sections = {"components": components} if components else {}
    data = described(dims={"hidden_size": 32, "vocab_size": 259}, stack=stack, **sections)
    options: dict[str, Any] = {
        "recipe": RECIPE,
        "budget": Budget("steps", steps),
        "cadence": Cadence(evaluations=0, samples=0, checkpoints=0),
    }
    return train(axon_compose.load(data), text, out, **options | more)


def weights(folder: Path) -> dict[str, np.ndarray]:
    """The parameters of a folder."""
    return {name: np.array(value) for name, value in tree_flatten(axon_compose.load_model(folder).parameters())}
