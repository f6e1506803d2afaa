"""The model of a GGUF file as a published checkpoint, which other implementations read."""

from __future__ import annotations

from pathlib import Path

from mlx.utils import tree_flatten

from axon_compose.checkpoints.exported import config_json
from axon_compose.checkpoints.files import CheckpointError, check_space, tensor_specs
from axon_compose.checkpoints.trained import build_trained
from axon_compose.checkpoints.weights import plan_save, save_checkpoint
from axon_compose.language.source import plain
from axon_compose.plan import Compiled

__all__ = ["write_published"]


def write_published(compiled: Compiled, path: Path, place: Path, *, allow_large: bool = False) -> None:
    """Write the model of a GGUF file with its decoded weights, in float32 and Hugging Face's layout.

    Args:
        compiled: What `compile_gguf` gave.
        path: The file.
        place: An empty folder.
        allow_large: Do not compare the size with the memory that is free.

    Raises:
        CheckpointError: AX557, AX558 the rules do not lead to a checkpoint; AX609 it has no model type; no space.
    """
    section, config = compiled.document.huggingface, compiled.config
    if section is None or config is None or not config.model_types:
        raise CheckpointError(
            "AX609",
            f"`{compiled.name}` has no model type, so there is nothing to compare with",
            "leave `--family` out, or take a family file with `huggingface.model_types`",
        )
    model = build_trained(compiled, path, dtype="float32", allow_large=allow_large, unpack=True)
    weights = dict(tree_flatten(model.parameters()))
    del model
    save_plan = plan_save(compiled.plan(), section, compiled.document.dims, tensor_specs(weights), "huggingface")
    check_space(place, sum(spec.nbytes for spec in save_plan.specs))
    (place / "config.json").write_bytes(config_json(plain(config.written or config.top)))
    save_checkpoint(place, save_plan, weights)
