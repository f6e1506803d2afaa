"""`load`: a file, a name, a mapping or a checkpoint to an `Architecture`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from axon_compose.architecture._architecture import Architecture
from axon_compose.diagnostics import Problems
from axon_compose.plan import compile_source, compile_text
from axon_compose.registry import Registry

__all__ = ["load", "load_text"]


def load(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    checkpoint: str | Path | None = None,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Architecture:
    """Read, validate and plan a description.

    Args:
        source: Path of a YAML file, name of a shipped architecture, or the description as a mapping. With a checkpoint
            it may be left out: the family that reads its model type is taken.
        checkpoint: Folder with a config.json, from which a family file takes its sizes.
        settings: `key.key=value` texts, laid over the file as `--set` does.
        registry: The plugins to use; the installed ones unless given.

    Returns:
        The architecture.

    Raises:
        ArchitectureError: With every fault that was found.
        OSError: If the file cannot be read.
    """
    if checkpoint is not None:
        from axon_compose.checkpoints.compile import compile_checkpoint  # only checkpoints need it

        return Architecture.of(compile_checkpoint(checkpoint, source, settings=settings, registry=registry))
    if source is None:
        raise TypeError("give a source, or a checkpoint")
    return Architecture.of(compile_source(source, settings=settings, registry=registry))


def load_text(
    data: bytes, file: str, directory: Path, *, settings: Iterable[str] = (), problems: Problems | None = None
) -> Architecture:
    """The same for the bytes of a file, such as those of standard input; see `axon_compose.plan.compile_text`."""
    registry, problems = Registry.installed(), Problems() if problems is None else problems
    return Architecture.of(compile_text(data, file, directory, settings=settings, registry=registry, problems=problems))
