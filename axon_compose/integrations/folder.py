"""An architecture to a folder that the `mlx_lm` commands run: config.json, weights, tokenizer, build.json."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from axon_compose._api import Architecture
from axon_compose.checkpoint import MAX_SHARD_BYTES, check_space, check_target, require, write_folder
from axon_compose.checkpoint._tokenizer import tokenizer_files
from axon_compose.integrations.names import CONFIG_KEY, MODEL_TYPE
from axon_compose.model import GROUP_SIZE, largest_parts, quantize, random_weights
from axon_compose.plan import DTYPES, Plan, plan_to_dict, weight_nbytes

__all__ = ["check_write", "write_model"]


def write_model(
    architecture: Architecture,
    target: Path,
    *,
    dtype: str = "float32",
    seed: int = 0,
    quantize_bits: int | None = None,
    tokenizer: str | Path = "bytes",
    force: bool = False,
    allow_large: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a model with random weights as a folder, whole or not at all.

    Weights are made, written and freed one by one, so memory for the largest tensor is enough.

    Args:
        architecture: What `load` gave.
        target: The folder.
        dtype: `float32`, `bfloat16` or `float16`.
        seed: Of the random weights; the same seed and versions give the same bytes.
        quantize_bits: Quantise to so many bits, or None.
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
        plan, target, dtype=dtype, bits=quantize_bits, tokenizer=tokenizer, force=force, allow_large=allow_large
    )
    model = random_weights(plan, dtype=dtype, seed=seed)
    config = _config(architecture, dtype)
    if quantize_bits:
        quantize(model, quantize_bits)
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": quantize_bits, "mode": "affine"}
    tensors = dict(tree_flatten(model.parameters()))
    del model  # the writer must be the last to hold each tensor, so that it is freed once it is written
    return write_folder(
        target,
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        build_record=_record(plan, dtype, seed, quantize_bits),
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


def _config(architecture: Architecture, dtype: str) -> dict[str, Any]:
    plan = architecture.plan()
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["AxonComposeForCausalLM"],
        "vocab_size": plan.dims.vocab_size,
        "hidden_size": plan.dims.hidden_size,
        "num_hidden_layers": len(plan.layers),
        "torch_dtype": dtype,
        CONFIG_KEY: {"architecture": architecture.data},
    }


def _record(plan: Plan, dtype: str, seed: int, bits: int | None) -> dict[str, Any]:
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
