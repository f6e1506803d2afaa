"""Folders that are made once for each content, and found again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from axon_compose.checkpoints.files import CheckpointError, atomic_folder

__all__ = ["cache_folder", "keep"]


def cache_folder() -> Path:
    """Where prepared tokens and trained tokenizers are kept: `axon-compose` in `XDG_CACHE_HOME`, or in `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "axon-compose"


def keep(folder: Path, make: Callable[[Path], None], whole: Callable[[Path], bool]) -> Path:
    """A folder that is named after its content: as it is if it is there, else made, whole or not at all.

    Args:
        folder: Where it is kept.
        make: Fills an empty folder.
        whole: Whether nothing of it has been lost since; if something has, it is made anew.

    Raises:
        CheckpointError: AX503 it cannot be written.
    """
    if folder.is_dir() and not whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(folder) as partial:
            make(partial)
    except CheckpointError as error:
        if folder.is_dir():  # another process was quicker
            return folder
        if error.code == "AX503" and error.help is None:
            raise CheckpointError(error.code, error.message, "`XDG_CACHE_HOME` names another place") from error
        raise
    return folder
