"""A folder that appears complete or not at all.

The body fills a hidden sibling, `.NAME.PID-RANDOM.partial`. When it is done, everything is synced and the sibling takes
the name of the target in one step. Whatever ends the body, the target is what it was before, or the new folder, whole.
SIGKILL leaves the sibling; the next build of the same target removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from axon_compose.checkpoints.files import _disk
from axon_compose.checkpoints.files._interrupts import Interrupts
from axon_compose.checkpoints.files._record import strangers
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.files import cannot_write

__all__ = ["atomic_folder", "check_target"]

_PARTIAL: Final = ".partial"
_ASIDE: Final = ".old"
_LEFTOVER: Final = re.compile(r"[0-9]{1,10}-[0-9a-f]{8}\.(partial|old)")


@contextmanager
def atomic_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the body ends without an exception.

    In the main thread SIGTERM and SIGHUP raise `SystemExit(128 + signal)` in the body; see `Interrupts`.

    Args:
        target: Where the folder is wanted. A symbolic link is followed; missing parents are made.
        force: Replace an existing folder, if it is empty or holds nothing but a build of ours.

    Raises:
        CheckpointError: AX501 the target exists; AX502 it is not ours to replace; AX503 the disk failed.
    """
    check_target(target, force)
    target = Path(os.path.realpath(target))
    try:
        with Interrupts() as interrupts, _parents(target.parent):
            _sweep(target)
            with _partial_folder(target) as partial:
                with interrupts.allowed():
                    yield partial
                    _sync_tree(partial)
                check_target(target, force)
                _publish(partial, target)
    except OSError as error:
        raise cannot_write(target, error) from error


def check_target(target: Path, force: bool) -> None:
    """Refuse a target that must not be replaced; see `atomic_folder`."""
    given, target = target, Path(os.path.realpath(target))
    if not target.name:
        raise CheckpointError("AX502", f"`{given}` cannot be the folder of a model", "name a folder inside it")
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise CheckpointError("AX502", f"`{given}` exists and is not a folder", "choose another path")
    if foreign := strangers(target):
        named = ", ".join(f"`{name}`" for name in foreign[:3]) + (", …" if len(foreign) > 3 else "")
        message = f"`{given}` contains files that no build wrote: {named}"
        raise CheckpointError(
            "AX502", message, "such a folder is never replaced; choose another path, or move those files"
        )
    if not force:
        raise CheckpointError("AX501", f"`{given}` exists already", "`--force` replaces it")


def _publish(partial: Path, target: Path) -> None:
    """Give `partial` the name `target`; a folder that was there gets the name `partial`, or is removed."""
    if not target.exists():
        _disk.move(partial, target)
    elif not _disk.exchange(partial, target):
        _swap_in_two_steps(partial, target)
    _disk.sync(target.parent)


def _swap_in_two_steps(partial: Path, target: Path) -> None:
    aside = partial.with_suffix(_ASIDE)
    try:
        _disk.rename(target, aside)
        _disk.rename(partial, target)
    finally:
        _recover(aside, target)


def _recover(aside: Path, target: Path) -> None:
    """End a swap: put the old folder back where no new one is, else remove it."""
    if not target.exists() and aside.exists():
        _disk.rename(aside, target)
    _disk.remove_tree(aside)


@contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    path, lock = _claim(target)
    try:
        yield path
    finally:
        _disk.remove_tree(path)
        os.close(lock)


def _claim(target: Path) -> tuple[Path, int]:
    """Make a partial folder and lock it: the lock dies with the process, so a folder without one is stale."""
    while True:
        path = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")
        try:
            _disk.create_folder(path)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _is_free(lock, path) and path.exists():
                return path, lock
            os.close(lock)  # a sweeping neighbour was quicker than the lock
        except BaseException:
            _disk.remove_tree(path)
            raise


def _sweep(target: Path) -> None:
    """Remove what killed builds of `target` have left; those of running builds stay."""
    prefix = f".{target.name}."
    for path in [p for p in target.parent.iterdir() if p.name.startswith(prefix)]:
        if not _LEFTOVER.fullmatch(path.name.removeprefix(prefix)) or path.is_symlink() or not path.is_dir():
            continue
        if path.suffix == _ASIDE:
            _recover(path, target)
        else:
            with suppress(OSError):
                _remove_if_free(path)


def _remove_if_free(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if _is_free(lock, path):
            _disk.remove_tree(path)
    finally:
        os.close(lock)


def _is_free(lock: int, path: Path) -> bool:
    """Whether the lock of `path` could be taken; without locks, whether no other process of that number runs."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        number = int(path.stem.rpartition(".")[2].partition("-")[0])
        return number == os.getpid() or not _is_running(number)
    return True


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs for somebody else
        return True
    return True


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _disk.sync(path)
    _disk.sync(folder)


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make missing parents, and take them away again if the body fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            try:
                _disk.create_folder(path)
            except FileExistsError:
                if not path.is_dir():  # if it is one, another process was quicker
                    raise
            _disk.sync(path.parent)
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise
