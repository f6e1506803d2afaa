"""A family file with the sizes of a checkpoint: its config.json laid over the dims, then compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.huggingface._config import read_config
from axon_compose.checkpoints.huggingface._dims import overlay_of
from axon_compose.checkpoints.huggingface._families import Family, family_of
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config
from axon_compose.machine.files import read_regular
from axon_compose.plan import Compiled, compile_source, compile_text
from axon_compose.registry import Registry

__all__ = ["compile_checkpoint"]


def compile_checkpoint(
    folder: str | Path,
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Compiled:
    """Read, validate and plan a family file with the sizes of a checkpoint.

    Args:
        folder: With a config.json.
        source: The family file; the family that reads the checkpoint's model type unless given.
        settings: Texts of `--set`.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault that was found.
        OSError: If the file cannot be read.
    """
    registry, problems = registry or Registry.installed(), Problems()
    config = read_config(Path(folder), problems)
    overlay = overlay_of(config) if config else None
    if source is not None:
        return compile_source(
            source, settings=settings, config=config, overlay=overlay, registry=registry, problems=problems
        )
    family = _family(config, registry, problems)  # its file, whatever the current folder has under that name
    return compile_text(
        read_regular(family.path),
        family.name,
        family.path.parent,
        settings=settings,
        config=config,
        overlay=overlay,
        registry=registry,
        problems=problems,
    )


def _family(config: Config | None, registry: Registry, problems: Problems) -> Family:
    """The family of a checkpoint."""
    family = family_of(config, registry, problems) if config else None
    problems.raise_if_any()
    assert family is not None  # otherwise it was reported
    return family
