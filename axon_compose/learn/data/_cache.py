"""Folders that are made once for each content, and found again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from axon_compose.checkpoints.files import CheckpointError, atomic_folder

__all__ = ["cache_folder", "keep"]


def cache_folder() -> Path:
    """Where prepared tokens and trained tokenizers are kept: `axon-compose` in `XDG_CACHE_HOME`, or in `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "axon-compose"


def keep(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is named after its content: as it is if it is there, else made, whole or not at all.

    Raises:
        CheckpointError: AX503 it cannot be written.
    """
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(folder) as partial:
            make(partial)
    except CheckpointError:
        if not folder.is_dir():  # another process was quicker
            raise
    return folder
