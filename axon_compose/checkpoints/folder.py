"""An architecture to a folder that the `mlx_lm` commands run: config.json, weights, tokenizer, build.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from math import isfinite, prod
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from axon_compose.checkpoints.files import MAX_SHARD_BYTES, check_space, check_target, require, write_folder
from axon_compose.checkpoints.files._tokenizer import tokenizer_files
from axon_compose.checkpoints.trained import build_trained
from axon_compose.language.document import Layout
from axon_compose.language.source import plain
from axon_compose.model import LanguageModel, largest_parts, quantize, random_weights
from axon_compose.model.names import CONFIG_KEY, MODEL_TYPE, FolderNames
from axon_compose.plan import DTYPES, Compiled, Plan, plan_to_dict, weight_nbytes

__all__ = ["check_write", "without_infinity", "write_model"]


def write_model(
    architecture: Compiled,
    target: Path,
    *,
    weights: Path | None = None,
    layout: Layout | None = None,
    dtype: str | None = None,
    seed: int = 0,
    quantize_bits: int | None = None,
    model_file: bool = True,
    tokenizer: str | Path = "bytes",
    force: bool = False,
    allow_large: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a model as a folder, whole or not at all.

    Random weights are made, written and freed one by one, so memory for the largest tensor is enough. Those of a
    checkpoint are in memory once.

    Args:
        architecture: What `load` gave.
        target: The folder.
        weights: Folder of a checkpoint to take the weights from; random weights unless given.
        layout: Who wrote the checkpoint; the mark in its files unless given.
        dtype: `float32`, `bfloat16` or `float16`; float32, or as the checkpoint has it, unless given.
        seed: Of the random weights; the same seed and versions give the same bytes.
        quantize_bits: Quantise to so many bits, or None.
        model_file: Name a Python file in config.json, which mlx_lm runs if it is trusted; without one, tools that
            trust no code load the folder where axon-compose is installed (`axon_compose.checkpoints.tools`).
        tokenizer: `bytes`, or a folder with a `tokenizer.json`.
        force: Replace an earlier build.
        allow_large: Do not compare the size with the memory that is free.
        max_shard_bytes: Largest weight file.
        progress: Called with bytes written and bytes in all.

    Returns:
        The content of build.json.

    Raises:
        CheckpointError: If it cannot be written, or a tensor does not fit into memory.
    """
    plan = architecture.plan()
    check_write(
        plan,
        target,
        dtype=dtype or "float32",
        bits=quantize_bits,
        tokenizer=tokenizer,
        force=force,
        allow_large=allow_large or weights is not None,
    )
    if weights is None:
        model = random_weights(plan, dtype=dtype or "float32", seed=seed)
    else:
        model = build_trained(
            architecture, weights, dtype=dtype, seed=seed, allow_large=allow_large, layout=layout, progress=progress
        )
    if quantize_bits:
        quantize(model, quantize_bits)
    config = _config(architecture, model) | ({} if model_file else {"model_file": None})
    names = FolderNames(plan)
    tensors = {names.in_folder(name): value for name, value in tree_flatten(model.parameters())}
    del model  # the writer must be the last to hold each tensor, so that it is freed once it is written
    return write_folder(
        target,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        build_record=_record(plan, config["torch_dtype"], seed if weights is None else None, quantize_bits),
        force=force,
        progress=progress,
        max_shard_bytes=max_shard_bytes,
    )


def check_write(
    plan: Plan,
    target: Path,
    *,
    dtype: str,
    bits: int | None,
    tokenizer: str | Path,
    force: bool = False,
    allow_large: bool = False,
) -> None:
    """Raise what `write_model` would refuse, before anything is made; the arguments are those of `write_model`.

    Raises:
        CheckpointError: If the folder is taken, the tokenizer unusable, or memory or disk too small.
    """
    check_target(target, force)
    tokenizer_files(tokenizer, plan.dims.vocab_size)
    if not allow_large:
        require(_peak(plan, dtype), f"the largest tensor of `{plan.name}`", largest_parts(plan, dtype))
    # Quantised sizes depend on which rows the groups divide; the exact ones are compared before writing.
    check_space(target, weight_nbytes(plan, dtype) * (bits or 32) // 32)


def _peak(plan: Plan, dtype: str) -> int:
    """Bytes while the largest tensor is made: random numbers in float32, and the copy in `dtype`."""
    return max(prod(shape) for _, shape in plan.parameters()) * (4 + DTYPES[dtype])


#: What a checkpoint's config.json says beside its sizes, and the commands go by.
_CARRIED: Final = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")


def _config(architecture: Compiled, model: LanguageModel) -> dict[str, Any]:
    plan, source = architecture.plan(), architecture.config
    carried = {name: source.value(name) for name in _CARRIED} if source else {}
    described: dict[str, Any] = {"architecture": architecture.data, **FolderNames.note}
    if source:
        described["source"] = without_infinity(plain(source.written or source.top))
    dtype = str(_dtype(model)).rpartition(".")[2]
    return {
        **{name: value for name, value in carried.items() if value is not None},
        "model_type": MODEL_TYPE,
        "architectures": ["AxonComposeForCausalLM"],
        "vocab_size": plan.dims.vocab_size,
        "hidden_size": plan.dims.hidden_size,
        "num_hidden_layers": len(plan.layers),
        "torch_dtype": dtype,
        CONFIG_KEY: described,
        **_quantization(model, FolderNames(plan)),
    }


def without_infinity(value: Any) -> Any:
    """The same for JSON, which has no word for infinity: as Python writes it, in quotes."""
    if isinstance(value, dict):
        return {key: without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(without_infinity, value))
    return json.dumps(value) if isinstance(value, float) and not isfinite(value) else value


def _dtype(model: LanguageModel) -> Any:
    """The type that most numbers of the model have, packed ones left aside."""
    sizes: Counter[Any] = Counter()
    for _, value in tree_flatten(model.parameters()):
        if mx.issubdtype(value.dtype, mx.floating):
            sizes[value.dtype] += value.size
    return sizes.most_common(1)[0][0]


def _quantization(model: LanguageModel, names: FolderNames) -> dict[str, Any]:
    """How the modules are quantised, as `mlx_lm` reads it: the usual way, and each module that differs."""
    modules = {
        names.in_folder(path): {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
        for path, module in tree_flatten(model.leaf_modules(), is_leaf=lambda leaf: isinstance(leaf, nn.Module))
        if hasattr(module, "bits")
    }
    if not modules:
        return {}
    usual = json.loads(Counter(json.dumps(how) for how in modules.values()).most_common(1)[0][0])
    return {"quantization": usual | {path: how for path, how in modules.items() if how != usual}}


def _record(plan: Plan, dtype: str, seed: int | None, bits: int | None) -> dict[str, Any]:
    versions = {name: version(name) for name in ("axon-compose", "mlx", "mlx-lm")}
    return {
        "name": plan.name,
        "seed": seed,
        "dtype": dtype,
        "quantize_bits": bits,
        "versions": versions,
        "plugins": dict(plan.plugins),
        "plan": plan_to_dict(plan),
    }
