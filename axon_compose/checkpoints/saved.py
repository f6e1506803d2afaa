"""A model out of memory to a folder, with whatever it has learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from axon_compose.checkpoints.built import BuiltFolder
from axon_compose.checkpoints.edited import EDIT_KEY, edit_noted, edited_of
from axon_compose.checkpoints.files import MAX_SHARD_BYTES, check_target, write_folder
from axon_compose.checkpoints.files._byte_tokenizer import byte_tokenizer
from axon_compose.checkpoints.files._generation import generation_of
from axon_compose.checkpoints.files._safetensors import differences
from axon_compose.checkpoints.files._tokenizer import is_tokenizer_of, tokenizer_folder
from axon_compose.checkpoints.folder import folder_record, folder_tensors, usual_tokenizer
from axon_compose.checkpoints.folder_config import folder_config
from axon_compose.devices import devices_of
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.config import CONFIG_KEY
from axon_compose.model import LanguageModel
from axon_compose.plan import Compiled, Plan

__all__ = ["save"]


def save(
    model: LanguageModel,
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    more: Callable[[Path], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a model with its weights as a folder, whole or not at all; `load_model` and mlx_lm read it back.

    Args:
        model: What `Architecture.build`, `load_model` or `mlx_lm.load` gave, trained since or not; quantised weights
            stay so.
        folder: The new folder.
        tokenizer: `bytes`, `bytes-chat`, `none`, or a folder with the files of a tokenizer. Unless given, that of the
            folder that the model came from; for a new model `bytes`, or `none` if its vocabulary is smaller.
        force: Replace an earlier build.
        max_shard_bytes: Largest weight file.
        more: Writes further files into the new folder before it takes its name.
        progress: Called with bytes written and bytes in all.

    Returns:
        The content of build.json.

    Raises:
        CheckpointError: AX501 to AX505 the folder cannot be written; AX512 the weights are not those of the model's
            description, such as adapters or a resized embedding; AX541, AX542 the tokenizer cannot be used.
        ValueError: If the model carries no description, or mlx_lm loaded it and `tokenizer` is not given.
    """
    target, plan = Path(folder), model.plan
    check_target(target, force)
    compiled, home = _origin(model, tokenizer)
    _require_weights(model)
    tokenizer = tokenizer or (usual_tokenizer(home) if home else _new_tokenizer(plan.dims.vocab_size))
    config = folder_config(compiled, model, ids=is_tokenizer_of(home, tokenizer))
    config[CONFIG_KEY] |= _edit_of(home, plan)
    bits = config.get("quantization", {}).get("bits")
    return write_folder(
        target,
        config=config,
        tensors=folder_tensors(model),
        tokenizer=tokenizer,
        generation=generation_of(home if home and home.is_dir() else None, tokenizer_folder(tokenizer)),
        build_record=folder_record(plan, config["torch_dtype"], None, bits),
        force=force,
        more=more,
        progress=progress,
        max_shard_bytes=max_shard_bytes,
    )


def _origin(model: LanguageModel, tokenizer: str | Path | None) -> tuple[Compiled, Path | None]:
    """The description that a model carries, and the folder that it came from, if it did."""
    if model.compiled is None:
        raise ValueError("the model has no description; those that `Architecture.build` and `load_model` give have one")
    written = model.written
    if written is None:
        config = model.compiled.config
        return model.compiled, config.folder if config else None
    if tokenizer is None:
        raise ValueError("mlx_lm loaded the model and says not from where: pass `tokenizer`, that folder or `bytes`")
    home = tokenizer_folder(tokenizer)
    return replace(model.compiled, config=BuiltFolder(home or Path(), written).config), home


def _edit_of(home: Path | None, plan: Plan) -> dict[str, Any]:
    """What the folder that a model came from says of an edit, as far as the model still has its layers and tokens."""
    noted = edit_noted(home) if home else None
    return {} if edited_of(noted, plan) is None else {EDIT_KEY: noted}


def _new_tokenizer(vocab_size: int) -> str:
    """One token per byte, if the model has so many."""
    return "bytes" if vocab_size >= byte_tokenizer().ids["vocab_size"] else "none"


def _require_weights(model: LanguageModel) -> None:
    """Refuse a model whose weights are not those that its description declares, in names and shapes.

    Raises:
        CheckpointError: AX512.
    """
    if (devices := devices_of(model.plan)) > 1:
        message = f"the model is the part of one of {devices} devices, not what `{model.plan.name}` describes"
        raise CheckpointError("AX512", message, "save the whole model, which each device reads its part of")
    found = {model.plan_name(name): tuple(value.shape) for name, value in tree_flatten(model.parameters())}
    for place, module in tree_flatten(model.leaf_modules(), is_leaf=lambda leaf: isinstance(leaf, nn.Module)):
        if hasattr(module, "bits"):
            path = model.plan_name(place)
            found = {name: shape for name, shape in found.items() if name not in _packing(path)}
            *rows, words = module.weight.shape
            found[f"{path}.weight"] = (*rows, words * 32 // module.bits)
    details = differences(found, dict(model.plan.parameters()))
    if not details:
        return
    adapters = any(hasattr(module, "fuse") for _, module in model.named_modules())
    hint = (
        "fuse the adapters first, as `mlx_lm.fuse` does"
        if adapters
        else "build a model of the changed description, and copy into it the weights that the two have in common"
    )
    message = f"the weights of the model are not those that `{model.plan.name}` describes"
    raise CheckpointError("AX512", message, hint, details)


def _packing(path: str) -> tuple[str, str]:
    """Arrays that a quantised module has beside its weight."""
    return f"{path}.scales", f"{path}.biases"
