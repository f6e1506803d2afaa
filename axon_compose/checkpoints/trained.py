"""A model with the weights of a checkpoint, instead of random ones."""

from __future__ import annotations

from pathlib import Path

from axon_compose.checkpoints.files import Unchanged
from axon_compose.checkpoints.weights import LoadPlan, Progress, checkpoint_plan, load_checkpoint, load_nbytes
from axon_compose.language.document import Layout
from axon_compose.machine.memory import require
from axon_compose.model import LanguageModel, largest_parts, random_weights
from axon_compose.plan import Compiled

__all__ = ["build_trained", "plan_trained"]


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
    folder = Path(weights)
    with Unchanged(folder):
        load_plan = plan_trained(compiled, folder, dtype=dtype, allow_large=allow_large, layout=layout)
        model = random_weights(compiled.plan(), seed=seed)
        load_checkpoint(model, load_plan, dtype=dtype, progress=progress)
    model.eval()
    return model


def plan_trained(
    compiled: Compiled,
    weights: Path,
    *,
    dtype: str | None = None,
    allow_large: bool = False,
    layout: Layout | None = None,
) -> LoadPlan:
    """What `build_trained` will read, once it is known to fit into memory; reads headers alone.

    Raises:
        CheckpointError: As `build_trained` does.
    """
    plan = compiled.plan()
    load_plan = checkpoint_plan(plan, compiled.document, weights, layout)
    if not allow_large:
        stored = f"in {dtype}" if dtype else "as it is stored"
        needed = sum(load_nbytes(load_plan, plan, dtype))
        require(needed, f"`{compiled.name}` {stored}", largest_parts(plan, dtype or "bfloat16"))
    return load_plan
