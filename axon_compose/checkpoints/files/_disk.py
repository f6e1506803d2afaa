"""Every change that a build makes on the disk, one small function each.

Nothing else in this package creates, writes, syncs, renames or removes, so a test that makes the n-th of these calls
fail, for every n, has tried every way in which a build can be cut short.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from axon_compose.machine.files import sync

__all__ = [
    "FileRecord",
    "create_folder",
    "exchange",
    "move",
    "record",
    "remove_tree",
    "rename",
    "sync",
    "write_chunk",
    "write_file",
]

Bytes = bytes | memoryview

_AT_FDCWD: Final = -100
#: (flag on Linux, flag on macOS) of the system calls renameat2 and renamex_np.
_NOREPLACE: Final = (1, 4)
_EXCHANGE: Final = (2, 2)
_UNSUPPORTED: Final = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}


class FileRecord(NamedTuple):
    """What `build.json` keeps of a file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def create_folder(path: Path) -> None:
    """Make a new folder; its parent must exist."""
    path.mkdir()


def write_chunk(file: BinaryIO, chunk: Bytes) -> None:
    """Append `chunk` to an open file."""
    file.write(chunk)


def write_file(path: Path, chunks: Iterable[Bytes]) -> FileRecord:
    """Write a new file piece by piece and hash it on the way.

    Raises:
        OSError: The file exists, the disk is full, or fewer bytes arrived than were written.
    """
    digest, size = sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            write_chunk(file, chunk)
            digest.update(chunk)
            size += len(chunk)
            del chunk  # what it is a part of is not kept until there is another one
    if path.stat().st_size != size:
        raise OSError(errno.EIO, "the file is shorter than what was written", str(path))
    return FileRecord(size, digest.hexdigest())


def record(path: Path) -> FileRecord:
    """Size and hash of a file that is there."""
    with path.open("rb") as file:
        return FileRecord(os.fstat(file.fileno()).st_size, file_digest(file, "sha256").hexdigest())


def rename(source: Path, target: Path) -> None:
    """Rename; a target that is an empty folder is replaced, any other is an error."""
    source.rename(target)


def move(source: Path, target: Path) -> None:
    """Rename to a name that must be free, where the file system can promise that."""
    if not _system_rename(source, target, _NOREPLACE):
        rename(source, target)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False if the file system cannot."""
    return _system_rename(first, second, _EXCHANGE)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it, as far as possible."""
    shutil.rmtree(path, ignore_errors=True)


def _system_rename(first: Path, second: Path, flags: tuple[int, int]) -> bool:
    import ctypes  # it opens libraries, which reading a file need not

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(*names, ctypes.c_uint(flags[1]))
        else:
            failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(flags[0]))
    except AttributeError:  # a C library without the call
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
