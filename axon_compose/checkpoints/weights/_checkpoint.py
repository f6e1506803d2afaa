"""A checkpoint against a planned file: its headers, its config.json, and the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axon_compose.checkpoints.built import is_adapter, is_built, read_built
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.gguf._rope import FACTORS
from axon_compose.checkpoints.huggingface import read_config
from axon_compose.checkpoints.weights._buffers import check_buffers
from axon_compose.checkpoints.weights._declared import declared_in
from axon_compose.checkpoints.weights._headers import read_checkpoint
from axon_compose.checkpoints.weights._own import plan_own
from axon_compose.checkpoints.weights._plan_load import LoadPlan, plan_load
from axon_compose.checkpoints.weights._storage import BLOCK
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config
from axon_compose.language.document import Document, HuggingFace, Layout
from axon_compose.plan import Plan
from axon_compose.plan.folder_names import FolderNames

__all__ = ["checkpoint_plan"]


def checkpoint_plan(plan: Plan, document: Document, folder: Path, layout: Layout | None = None) -> LoadPlan:
    """Decide what becomes of every tensor of a folder: by the rules, or in a built folder by its name.

    See `plan_load` and `plan_own`. Of the tensors only those are read that have to equal what the model computes.

    Args:
        plan: The model.
        document: The file that it comes from, with the rules.
        folder: The checkpoint.
        layout: Who wrote it; the mark in its files unless given.

    Raises:
        CheckpointError: What `read_checkpoint`, `plan_load` and `plan_own` raise; AX557 the file has no rules.
    """
    if is_built(folder) or is_adapter(folder):
        built = read_built(folder)
        return plan_own(plan, read_checkpoint(built.folder), FolderNames(plan, built.written))
    if is_gguf(folder):
        return _plan_gguf(plan, document, folder)
    found = read_checkpoint(folder)  # before anything is said of the description: there may be none
    section = document.huggingface
    if section is None or not section.weights:
        raise CheckpointError(
            "AX557",
            f"`{plan.name}` has no rules for tensors",
            "`huggingface.weights` says which tensor is which weight; the shipped families have it",
        )
    config = read_config(folder, Problems())
    load_plan = plan_load(
        plan,
        section,
        document.dims,
        found.tensors,
        layout or found.layout,
        block=_block(config),
        declared=declared_in(config),
        wrapped=config is not None and config.wrapped,
    )
    check_buffers(load_plan.compared, plan.name)
    return load_plan


def _plan_gguf(plan: Plan, document: Document, path: Path) -> LoadPlan:
    """By the rules of the section `gguf`."""
    section = document.gguf
    if section is None or not section.weights:
        message = f"`{plan.name}` has no rules for the tensors of GGUF files"
        hint = "`gguf.weights` says which tensor is which weight; `axon-compose import FILE.gguf` writes it"
        raise CheckpointError("AX557", message, hint)
    found = read_checkpoint(path)
    tensors = {name: header for name, header in found.tensors.items() if name not in FACTORS}
    load_plan = plan_load(plan, HuggingFace(weights=section.weights), document.dims, tensors, found.layout)
    check_buffers(load_plan.compared, plan.name)
    return load_plan


def _block(config: Config | None) -> tuple[int, int]:
    """Rows and columns of an fp8 block, as config.json has it."""
    written: Any = config.value("quantization_config.weight_block_size") if config else None
    match written:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    return BLOCK
