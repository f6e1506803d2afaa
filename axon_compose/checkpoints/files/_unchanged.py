"""A checkpoint that somebody else writes while it is read: a download, a training run, another build."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from axon_compose.checkpoints.gguf._path import gguf_parts
from axon_compose.diagnostics import CheckpointError

__all__ = ["Stamp", "Unchanged", "stamps_of"]

#: What is read of a folder.
_READ: Final = ("config.json", "*.safetensors", "*.safetensors.index.json")


class Stamp(NamedTuple):
    """What differs once a file was written, cut or replaced."""

    device: int
    inode: int
    size: int
    modified: int


class Unchanged:
    """While it is entered, and between the times that it is, the files of a folder must stay as they are.

    Headers are read first and numbers later, by MLX, lazily. A file that changes in between can end in any exception
    of MLX, or in numbers of which some are old and some new.

    Args:
        folder: The checkpoint, a folder or a GGUF file, nothing of it read yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = stamps_of(folder)

    def __enter__(self) -> None:
        """Begin to read."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise AX513 if a file has changed, whatever the body raised because of it."""
        if error is not None and not isinstance(error, Exception):
            return
        now = stamps_of(self._folder)
        changed = sorted(path for path in self._before | now if self._before.get(path) != now.get(path))
        if changed:
            what = "has changed" if changed[0] in now else "has gone"
            message = f"`{changed[0]}` {what} while the checkpoint was read"
            hint = "wait until whatever writes to that folder has finished, and begin again"
            raise CheckpointError("AX513", message, hint) from error


def stamps_of(folder: Path) -> dict[Path, Stamp]:
    """The stamp of every file that is read of a checkpoint, a folder or a GGUF file; none of those that are missing."""
    found = {}
    inside = (path for pattern in _READ for path in folder.glob(pattern))
    for path in gguf_parts(folder) if folder.is_file() else inside:
        try:
            status = path.stat()
        except OSError:
            continue  # it counts as gone
        found[path] = Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return found
