"""Adapters that `mlx_lm.lora` trained, joined with the weights of their model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from axon_compose.checkpoints.built import read_built
from axon_compose.checkpoints.files import read_header
from axon_compose.checkpoints.weights import LoadPlan
from axon_compose.diagnostics import CheckpointError
from axon_compose.model import LanguageModel, with_folder_names
from axon_compose.model.names import FolderNames

__all__ = ["join_adapters", "rounded_note"]

_WEIGHTS = "adapters.safetensors"
_CONFIG = "adapter_config.json"


def join_adapters(model: LanguageModel, folder: Path) -> None:
    """Add adapters to the weights of a model, in place; what `mlx_lm.fuse` does.

    LoRA and DoRA are added to the matrices that they belong to; weights of a full fine-tuning take the place of those
    of the model. Modules keep their classes: quantised ones are quantised again, which loses what is smaller than a
    step (`findings/mlx-lm-fuse-quantized.sh`).

    Args:
        model: With the weights that the adapters were trained on.
        folder: What `mlx_lm.lora` wrote.

    Raises:
        CheckpointError: AX511 a damaged file; AX512 the adapters are those of another model.
    """
    from mlx_lm.tuner.utils import load_adapters

    read_header(folder / _WEIGHTS)
    seen = _as_trained(model, folder)
    before: dict[str, Any] = dict(seen.named_modules())
    try:
        load_adapters(seen, str(folder))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        details = [line.strip() for line in str(error).splitlines()[1:11]]
        message = f"the adapters in `{folder}` are not those of this model: {str(error).splitlines()[0]}"
        raise CheckpointError("AX512", message, details=details) from error
    joined = {name: module.fuse() for name, module in seen.named_modules() if hasattr(module, "fuse")}
    for name, module in joined.items():
        kept = before[name]
        kept.update(module.parameters())
        _put(seen, name, kept)
    mx.eval([value for _, value in tree_flatten(model.parameters())])


def rounded_note(load_plan: LoadPlan, folder: Path) -> str | None:
    """That adapters are rounded with the quantised weights that they are joined with; None where nothing is rounded."""
    bits = sorted({transfer.form.packing.bits for transfer in load_plan.transfers if transfer.form.packing})
    if not bits or json.loads((folder / _CONFIG).read_text("utf-8")).get("fine_tune_type") == "full":
        return None
    return (
        f"the adapters are rounded to the {' and '.join(map(str, bits))} bits of the weights that they join, "
        "and what is smaller than a step is lost: `mlx_lm.fuse --dequantize` keeps it"
    )


def _as_trained(model: LanguageModel, folder: Path) -> LanguageModel:
    """The same modules by the names that they had when the adapters were trained."""
    names = FolderNames(model.plan, read_built(folder).written)
    return with_folder_names(model) if names.like_mlx_lm else model


def _put(model: LanguageModel, name: str, module: Any) -> None:
    """Give a module its place back."""
    *outer, last = name.split(".")
    place: Any = model
    for part in outer:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = module
