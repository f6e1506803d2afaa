"""A model with the weights of a checkpoint, instead of random ones."""

from __future__ import annotations

from pathlib import Path

from axon_compose.checkpoints.files import Unchanged
from axon_compose.checkpoints.weights import Progress, checkpoint_plan, load_checkpoint
from axon_compose.language.document import Layout
from axon_compose.machine.memory import require
from axon_compose.model import LanguageModel, largest_parts, random_weights
from axon_compose.plan import Compiled

__all__ = ["build_trained"]


def build_trained(
    compiled: Compiled,
    weights: str | Path,
    *,
    dtype: str | None = None,
    seed: int = 0,
    allow_large: bool = False,
    layout: Layout | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """Build a model and load a checkpoint into it; the arguments are those of `Architecture.build`.

    Raises:
        CheckpointError: If the weights do not fit into memory, are not those of this model, or change while they are
            read.
    """
    plan, folder = compiled.plan(), Path(weights)
    with Unchanged(folder):
        load_plan = checkpoint_plan(plan, compiled.document, folder, layout)
        if not allow_large:
            require(load_plan.nbytes, f"`{compiled.name}` as it is stored", largest_parts(plan))
        model = random_weights(plan, seed=seed)
        load_checkpoint(model, load_plan, dtype=dtype, progress=progress)
    model.eval()
    return model
