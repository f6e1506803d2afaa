"""A model with weights out of a folder, instead of random ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from axon_compose.checkpoints.adapters import join_adapters
from axon_compose.checkpoints.built import is_adapter, model_folder
from axon_compose.checkpoints.files import Unchanged
from axon_compose.checkpoints.places import compile_place, config_of
from axon_compose.checkpoints.weights import LoadPlan, Progress, checkpoint_plan, load_checkpoint, load_nbytes
from axon_compose.language.document import Layout
from axon_compose.machine.memory import require
from axon_compose.model import LanguageModel, largest_parts, random_weights
from axon_compose.plan import Compiled
from axon_compose.registry import Registry

__all__ = ["build_trained", "load_model", "load_trained", "plan_trained"]


def load_model(
    folder: str | Path,
    *,
    dtype: str | None = None,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
    allow_large: bool = False,
    progress: Progress | None = None,
) -> LanguageModel:
    """The model in a folder, with its weights.

    Args:
        folder: What `build --out` or `save` wrote; what `mlx_lm.convert`, `mlx_lm.fuse` or `mlx_lm.lora` made of that,
            adapters joined with the model that they were trained on; or a published checkpoint of a known family.
        dtype: `float32`, `bfloat16` or `float16`; as the weights are stored unless given. Quantised weights stay so.
        settings: `key.key=value` texts, laid over the description as `--set` does.
        registry: The plugins to use; the installed ones unless given.
        allow_large: Do not compare the size with the memory that is free.
        progress: Called with the bytes read so far and in all.

    Returns:
        The model, in evaluation mode.

    Raises:
        ArchitectureError: With every fault of the description, such as a plugin that is missing.
        CheckpointError: If the folder holds no model, or its weights do not fit into memory or are not those of the
            model.
    """
    compiled = compile_place(None, folder, settings=settings, registry=registry)
    return build_trained(compiled, folder, dtype=dtype, allow_large=allow_large, progress=progress)


def build_trained(
    compiled: Compiled,
    weights: str | Path,
    *,
    dtype: str | None = None,
    seed: int = 0,
    allow_large: bool = False,
    layout: Layout | None = None,
    unpack: bool = False,
    progress: Progress | None = None,
) -> LanguageModel:
    """Build a model and load the weights of a folder into it; the arguments are those of `Architecture.build`.

    With `unpack` quantised weights become plain numbers.

    Raises:
        CheckpointError: If the weights do not fit into memory, are not those of this model, or change while they are
            read.
    """
    return load_trained(
        compiled,
        weights,
        dtype=dtype,
        seed=seed,
        allow_large=allow_large,
        layout=layout,
        unpack=unpack,
        progress=progress,
    )[0]


def load_trained(
    compiled: Compiled,
    weights: str | Path,
    *,
    dtype: str | None = None,
    seed: int = 0,
    allow_large: bool = False,
    layout: Layout | None = None,
    unpack: bool = False,
    progress: Progress | None = None,
) -> tuple[LanguageModel, LoadPlan]:
    """The same with what was decided about every tensor; see `build_trained`."""
    folder = Path(weights)
    with Unchanged(model_folder(folder)):
        load_plan = plan_trained(compiled, folder, dtype=dtype, allow_large=allow_large, layout=layout, unpack=unpack)
        model = random_weights(compiled.plan(), seed=seed)
        load_checkpoint(model, load_plan, dtype=dtype, progress=progress)
    if is_adapter(folder):
        join_adapters(model, folder)
    config = compiled.config
    if config is None or config.folder != model_folder(folder):  # loaded without a checkpoint, or with another one
        config = config_of(folder)
    model.compiled = replace(compiled, config=config)
    model.eval()
    return model, load_plan


def plan_trained(
    compiled: Compiled,
    weights: Path,
    *,
    dtype: str | None = None,
    allow_large: bool = False,
    layout: Layout | None = None,
    unpack: bool = False,
) -> LoadPlan:
    """What `build_trained` will read, once it is known to fit into memory; reads headers alone.

    Raises:
        CheckpointError: As `build_trained` does.
    """
    plan = compiled.plan()
    load_plan = checkpoint_plan(plan, compiled.document, weights, layout)
    load_plan = load_plan.unpacked_all() if unpack else load_plan
    if not allow_large:
        stored = f"in {dtype}" if dtype else "as it is stored"
        needed = sum(load_nbytes(load_plan, plan, dtype))
        require(needed, f"`{compiled.name}` {stored}", largest_parts(plan, dtype or "bfloat16"))
    return load_plan
