"""`load`: a file, a name, a mapping or a folder to an `Architecture`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from axon_compose.architecture._architecture import Architecture
from axon_compose.checkpoints.hub_cache import snapshot_of
from axon_compose.checkpoints.places import compile_place
from axon_compose.plan import Given
from axon_compose.registry import Registry

__all__ = ["load"]


def load(
    source: Given | None = None,
    *,
    checkpoint: str | Path | None = None,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Architecture:
    """Read, validate and plan a description.

    Args:
        source: Path of a YAML file, name of a shipped architecture, or the description as a mapping; or a folder with a
            model: one that `build` or `save` wrote, or a published checkpoint. With a checkpoint it may be left out:
            the folder's own description is taken, or the family that reads its model type.
        checkpoint: Folder with a config.json, from which a family file takes its sizes; or one of the cache of
            huggingface_hub, `models--…`.
        settings: `key.key=value` texts, laid over the file as `--set` does.
        registry: The plugins to use; the installed ones unless given.

    Returns:
        The architecture.

    Raises:
        ArchitectureError: With every fault that was found.
        CheckpointError: If a folder looks like one that `build` wrote, and is not.
        OSError: If the file cannot be read.
        TypeError: If there is neither a source nor a checkpoint.
    """
    folder = None if checkpoint is None else snapshot_of(Path(checkpoint))
    return Architecture.of(compile_place(source, folder, settings=settings, registry=registry))
