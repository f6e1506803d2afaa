"""An architecture to a folder that the `mlx_lm` commands run: config.json, weights, tokenizer, build.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from axon_compose.checkpoints.adapters import rounded_note
from axon_compose.checkpoints.built import is_adapter, is_built, model_folder, read_built
from axon_compose.checkpoints.files import MAX_SHARD_BYTES, check_space, check_target, require, write_folder
from axon_compose.checkpoints.files._copied_tokenizer import has_tokenizer
from axon_compose.checkpoints.files._generation import generation_of
from axon_compose.checkpoints.files._shards import NotComputed
from axon_compose.checkpoints.files._tokenizer import is_tokenizer_of, tokenizer_files, tokenizer_folder
from axon_compose.checkpoints.files._tokenizer_files import TokenizerFiles
from axon_compose.checkpoints.folder_config import folder_config
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.trained import load_trained
from axon_compose.checkpoints.weights import LoadPlan, name_kind, read_checkpoint
from axon_compose.language.document import Layout
from axon_compose.model import LanguageModel, largest_parts, quantize, random_weights, rounding, weight_fault
from axon_compose.model.names import CONFIG_KEY, FolderNames
from axon_compose.plan import DTYPES, Compiled, Plan, plan_to_dict, weight_nbytes
from axon_compose.registry import Raised

__all__ = [
    "check_write",
    "folder_record",
    "folder_tensors",
    "quantised_anew",
    "tensors_origin",
    "usual_tokenizer",
    "write_model",
]


def write_model(
    architecture: Compiled,
    target: Path,
    *,
    weights: Path | None = None,
    layout: Layout | None = None,
    dtype: str | None = None,
    seed: int = 0,
    quantize_bits: int | None = None,
    unpack: bool = False,
    model_file: bool = True,
    tokenizer: str | Path | None = None,
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
        unpack: Write quantised weights of a checkpoint as the numbers that they stand for.
        model_file: Name a Python file in config.json, which mlx_lm runs if it is trusted; without one, tools that
            trust no code load the folder where axon-compose is installed (`axon_compose.checkpoints.tools`).
        tokenizer: `bytes`, `bytes-chat` (the same with a chat template), `none`, or a folder with the files of a
            tokenizer; that of `weights` unless given, `bytes` without one.
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
    home = weights and model_folder(weights)
    tokenizer = tokenizer or (usual_tokenizer(home) if home else "bytes")
    files = check_write(
        plan,
        target,
        dtype=dtype or "float32",
        bits=quantize_bits,
        tokenizer=tokenizer,
        force=force,
        allow_large=allow_large or weights is not None,
        trained=weights is not None,
    )
    load_plan = None
    if weights is None:
        model = random_weights(plan, dtype=dtype or "float32", seed=seed)
    else:
        model, load_plan = load_trained(
            architecture,
            weights,
            dtype=dtype,
            seed=seed,
            allow_large=allow_large,
            layout=layout,
            unpack=unpack or (quantize_bits is not None and is_gguf(weights)),
            progress=progress,
        )
    notes = quantised_anew(model, quantize_bits, weights) if quantize_bits else []
    config = folder_config(model.compiled or architecture, model, ids=is_tokenizer_of(home, tokenizer))
    config |= {} if model_file else {"model_file": None}
    if weights is not None and load_plan is not None:
        if origin := tensors_origin(load_plan, weights, layout):
            config[CONFIG_KEY]["tensors"] = origin
        if load_plan.unpacked and not unpack:
            notes.append(unpacked_note(load_plan, dtype))
        if is_adapter(weights) and (note := rounded_note(load_plan, weights)):
            notes.append(note)
    tensors = folder_tensors(model)
    del model  # the writer must be the last to hold each tensor, so that it is freed once it is written
    with _blamed(plan, made=weights is None):
        return write_folder(
            target,
            config=config,
            tensors=tensors,
            tokenizer=files,
            generation=generation_of(home, tokenizer_folder(tokenizer)),
            build_record=folder_record(plan, config["torch_dtype"], seed if weights is None else None, quantize_bits)
            | {"notes": notes},
            force=force,
            progress=progress,
            max_shard_bytes=max_shard_bytes,
        )


def quantised_anew(model: LanguageModel, bits: int, weights: str | Path | None) -> list[str]:
    """Quantise a model; notes for the user, of a GGUF file also how far its numbers move."""
    moved = rounding(model, bits) if is_gguf(weights) else None
    notes = quantize(model, bits)
    if moved is not None:
        notes.append(f"the numbers of the file are quantised anew: {bits} bits move them by {moved:.2%}")
    return notes


def unpacked_note(load_plan: LoadPlan, dtype: str | None) -> str:
    """That quantised tensors have become plain numbers, and of which type."""
    kind = dtype or next((t.sources[0].unasked for t in load_plan.transfers if t.sources[0].unasked), None)
    into = f", into {kind}" if kind else ""
    return f"{load_plan.unpacked} quantised tensors are unpacked{into}: MLX has no exact form for them"


@contextmanager
def _blamed(plan: Plan, *, made: bool) -> Iterator[None]:
    """Say whose array it is that cannot be computed.

    Args:
        plan: The model.
        made: Whether the factories of components made the weights; else a checkpoint has them.

    Raises:
        PluginFault: If a component's factory made it; what was raised for any other.
    """
    try:
        yield
    except NotComputed as error:
        tensor = FolderNames(plan).in_plan(error.tensor)
        for use in plan.uses() if made else ():
            if tensor.startswith(f"{use.path}."):
                name = tensor.removeprefix(f"{use.path}.")
                raise weight_fault(use, name, Raised(error.cause)) from error.cause
        raise error.cause from None


def usual_tokenizer(home: Path) -> str | Path:
    """The tokenizer of a model that came from a folder: what is there, also none where we wrote none."""
    return "none" if is_built(home) and not has_tokenizer(home) else home


def check_write(
    plan: Plan,
    target: Path,
    *,
    dtype: str,
    bits: int | None,
    tokenizer: str | Path,
    force: bool = False,
    allow_large: bool = False,
    trained: bool = False,
) -> TokenizerFiles:
    """Raise what `write_model` would refuse, before anything is made; the arguments are those of `write_model`.

    Returns:
        The files of the tokenizer.

    Raises:
        CheckpointError: If the folder is taken, the tokenizer unusable, or memory or disk too small.
    """
    check_target(target, force)
    files = tokenizer_files(tokenizer, plan.dims.vocab_size, trained=trained)
    if not allow_large:
        require(_peak(plan, dtype), f"the largest tensor of `{plan.name}`", largest_parts(plan, dtype))
    # Quantised sizes depend on which rows the groups divide; the exact ones are compared before writing.
    check_space(target, weight_nbytes(plan, dtype) * (bits or 32) // 32)
    return files


def _peak(plan: Plan, dtype: str) -> int:
    """Bytes while the largest tensor is made: random numbers in float32, and in another type what becomes of them."""
    return max(prod(shape) for _, shape in plan.parameters()) * (4 + (DTYPES[dtype] if dtype != "float32" else 0))


def tensors_origin(plan: LoadPlan, weights: Path, layout: Layout | None = None) -> dict[str, Any] | None:
    """The layout of a checkpoint and the kinds of names that it has, which an export gives back.

    A folder of ours hands on those of the checkpoint that it came from, None if there was none.
    """
    if is_built(weights) or is_adapter(weights):
        return read_built(weights).written[CONFIG_KEY].get("tensors")
    if is_gguf(weights):
        return None
    names = {name_kind(source.name) for transfer in plan.transfers for source in transfer.sources}
    return {"layout": layout or read_checkpoint(weights).layout, "names": sorted(names)}


def folder_tensors(model: LanguageModel) -> dict[str, Any]:
    """The arrays of a model by the names that they have in a new folder."""
    names = FolderNames(model.plan)
    return {names.in_folder(model.plan_name(name)): value for name, value in tree_flatten(model.parameters())}


def folder_record(plan: Plan, dtype: str, seed: int | None, bits: int | None) -> dict[str, Any]:
    """What build.json says of a build, beside the files."""
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
