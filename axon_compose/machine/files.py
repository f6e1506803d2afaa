"""Single files: read only if they are regular ones, written whole or not at all, replaced only when asked."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from axon_compose.diagnostics import CheckpointError, Refusal

__all__ = ["cannot_write", "check_output", "open_regular", "read_regular", "sync", "write_output"]

_UNSUPPORTED: Final = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
#: How file systems without hard links refuse one.
_NO_LINKS: Final = {errno.EPERM, errno.EMLINK, *_UNSUPPORTED}
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


def open_regular(path: Path) -> BinaryIO:
    """Open a file to be read; a FIFO is not waited for, and a device, which may never end, is not opened.

    Raises:
        OSError: There is no such file, it may not be read, or it is not a regular file.
    """
    _require_regular(path, path.stat())
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # `Path.open` takes no opener
    try:
        _require_regular(path, os.fstat(file.fileno()))  # another one may be there by now
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular(path: Path, limit: int = -1) -> bytes:
    """The first `limit` bytes of a file, or all of it; see `open_regular`."""
    with open_regular(path) as file:
        return file.read(limit)


def _require_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def check_output(target: Path, force: bool) -> None:
    """Refuse a file that must not be written: one that is there, unless `force`, and what is not a regular file.

    Raises:
        Refusal: AX507.
    """
    if not os.path.lexists(target):
        return
    if target.exists() and not target.is_file():
        raise Refusal("AX507", f"`{target}` exists and is not a regular file", "name a file")
    if not force:
        raise Refusal("AX507", f"`{target}` exists", "replace it with `--force`")


def write_output(target: Path, data: bytes, force: bool = False) -> None:
    """Write a file in one step: whatever happens, it is what it was, or the new one as a whole.

    The data goes to a hidden sibling, is synced, and takes the name. A file that is replaced keeps its permissions; a
    symbolic link is followed.

    Args:
        target: The file; its folder must exist.
        data: All that it shall hold.
        force: Replace a file that is there. Without it none is, however new.

    Raises:
        Refusal: AX507, see `check_output`; AX503 it could not be written.
    """
    check_output(target, force)
    real = Path(os.path.realpath(target))
    partial = real.with_name(f".axon-compose.{secrets.token_hex(8)}.partial")
    try:
        try:
            _write(partial, data, like=real)
            _publish(partial, real, force)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
        sync(real.parent)
    except FileExistsError:
        raise Refusal("AX507", f"`{target}` exists", "replace it with `--force`") from None
    except OSError as error:
        raise cannot_write(target, error) from error


def cannot_write(target: Path, error: OSError) -> CheckpointError:
    """AX503 of a file or a folder."""
    remedy = "free some space and try again" if error.errno in _FULL else None
    return CheckpointError("AX503", f"cannot write `{target}`: {(error.strerror or str(error)).lower()}", remedy)


def _write(partial: Path, data: bytes, like: Path) -> None:
    """Write a new file and bring it to the disk, with the permissions of the file that it will replace."""
    with partial.open("xb") as file:
        with suppress(FileNotFoundError):
            os.fchmod(file.fileno(), stat.S_IMODE(like.stat().st_mode))
        file.write(data)
    if partial.stat().st_size != len(data):
        raise OSError(errno.EIO, "the file is shorter than what was written", str(partial))
    sync(partial)


def _publish(partial: Path, target: Path, force: bool) -> None:
    if force:
        partial.replace(target)
        return
    try:
        os.link(partial, target)  # unlike a rename, it fails where a file is
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_output(target, force)
        partial.replace(target)


def sync(path: Path) -> None:
    """Bring a file or a folder (its list of names) to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        if sys.platform == "darwin":  # fsync stops at the cache of the drive there
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
