"""What a path is: the one place that decides it, for every command and for `load`.

A path of a file, the name of a shipped architecture, a folder that we built (or what mlx_lm made of one), a published
checkpoint, or a GGUF file. A name is taken for a name before a folder of that name is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

from axon_compose.checkpoints.built import CONFIG_FILE, compile_built, is_adapter, is_built, read_built
from axon_compose.checkpoints.gguf._path import gguf_files, is_gguf
from axon_compose.diagnostics import CheckpointError, Problems
from axon_compose.language.config import Config
from axon_compose.plan import Compiled, Given, compile_source, is_shipped
from axon_compose.registry import Registry

__all__ = ["compile_place", "config_of", "is_model_folder"]


def compile_place(
    source: Given | None,
    weights: str | Path | None = None,
    *,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Compiled:
    """Read, validate and plan whatever a path is.

    Args:
        source: A description: a path, a name, a mapping or a text; or a folder, whose description or family is taken.
            With `weights` it may be left out: their folder says what they are the weights of.
        weights: Folder that the weights, and the sizes of a family, come from.
        settings: Texts of `--set`.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault that was found.
        CheckpointError: AX560 a folder that looks like one of ours is not.
        OSError: If a file cannot be read.
        TypeError: If there is neither a source nor weights.
    """
    registry = registry or Registry.installed()
    folder = _folder(source, registry)
    if weights is None:
        if folder is not None:
            return _of_folder(folder, None, settings, registry)
        if source is None:
            raise TypeError("give a source, or a checkpoint")
        return compile_source(source, settings=settings, registry=registry)
    if folder is not None:
        same = folder.resolve() == Path(weights).resolve()
        source = None if same else _of_folder(folder, None, (), registry).data
    return _of_folder(Path(weights), source, settings, registry)


def _folder(source: Given | None, registry: Registry) -> Path | None:
    """The folder of a model that a source is, or None.

    Raises:
        CheckpointError: AX560 it is a folder without a model.
    """
    if not is_model_folder(source, registry):
        return None
    folder = Path(source)
    if is_gguf(folder):
        return folder
    if not is_adapter(folder) and not os.path.lexists(folder / CONFIG_FILE):
        hint = f"a folder with a model has a `{CONFIG_FILE}`; a description is a YAML file"
        if files := gguf_files(folder):
            hint = f"name one of its GGUF files: `{files[0]}`"
        raise CheckpointError("AX560", f"`{folder}` is a directory without a model", hint)
    return folder


def config_of(folder: Path) -> Config | None:
    """What a folder says beside its weights: of tokens, lengths, and the checkpoint that it came from.

    Raises:
        CheckpointError: AX560 the folder, or the model of its adapters, is none of ours.
    """
    if is_built(folder) or is_adapter(folder):
        return read_built(folder).config
    if is_gguf(folder):
        from axon_compose.checkpoints.gguf._compile import gguf_config

        return gguf_config(folder)
    from axon_compose.checkpoints.huggingface import read_config

    return read_config(folder, Problems())


def is_model_folder(source: Given | None, registry: Registry | None = None) -> TypeGuard[str | Path]:
    """Whether a source is a folder, where a model is expected, and not the name of an architecture; or a GGUF file."""
    if is_gguf(source):
        return True
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return False
    return isinstance(source, Path) or not is_shipped(source, registry or Registry.installed())


def _of_folder(folder: Path, source: Given | None, settings: Iterable[str], registry: Registry) -> Compiled:
    """What a folder is the model of, or another description with its sizes."""
    if is_built(folder) or is_adapter(folder):
        return compile_built(folder, source, settings=settings, registry=registry)
    if is_gguf(folder):
        from axon_compose.checkpoints.gguf._compile import compile_gguf

        return compile_gguf(folder, source, settings=settings, registry=registry)
    from axon_compose.checkpoints.compile import compile_checkpoint  # only published checkpoints need it

    return compile_checkpoint(folder, source, settings=settings, registry=registry)
