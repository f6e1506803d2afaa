"""A model that learns: data and a recipe to trained weights, with what was measured on the way.

What comes in: a model (or what it is compiled from), `Batches` of tokens, a `Recipe` and a `Budget`. What goes out: the
model with other weights, `Metrics` of every step, and files to continue from. It never draws, and no order of its data
depends on anything but a seed and the number of the step. mlx is imported when something is trained.
"""

from typing import TYPE_CHECKING

from axon_compose.learn.budget import Budget, Spent
from axon_compose.learn.cadence import Cadence
from axon_compose.learn.recipe import Recipe
from axon_compose.machine.lazy import importing

if TYPE_CHECKING:
    from axon_compose.learn._train import train
    from axon_compose.learn.batches import Batch, Batches
    from axon_compose.learn.data import Sources
    from axon_compose.learn.distilling import Teaching
    from axon_compose.learn.metrics import Metrics
    from axon_compose.learn.run import Listener, Outcome
    from axon_compose.learn.tasks import read_task
    from axon_compose.learn.trainer import Trainer

__all__ = [
    "Batch",
    "Batches",
    "Budget",
    "Cadence",
    "Listener",
    "Metrics",
    "Outcome",
    "Recipe",
    "Sources",
    "Spent",
    "Teaching",
    "Trainer",
    "read_task",
    "train",
]

# What runs a model is imported when it is asked for.
__getattr__ = importing(
    __name__,
    {
        "Batch": "batches",
        "Batches": "batches",
        "Listener": "run",
        "Metrics": "metrics",
        "Outcome": "run",
        "Sources": "data",
        "Teaching": "distilling",
        "Trainer": "trainer",
        "read_task": "tasks",
        "train": "_train",
    },
)
