"""The standard streams of a command: also those that are closed, full, or whose reader has gone."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

__all__ = ["OutputError", "give_up", "note", "open_streams", "put"]


class OutputError(Exception):
    """Standard output takes no more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {(error.strerror or str(error)).lower()}")
        #: Whether the reader has gone (`… | head`), which needs no message.
        self.unread = error.errno == errno.EPIPE


def open_streams() -> None:
    """Give standard streams that are closed (`>&-`, some services) nothing to read and nowhere to write."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # open to the end of the process


def put(text: str, *, now: bool = False) -> None:
    """Write to standard output; `now` does not wait for more.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        if text:  # a full device refuses even nothing
            sys.stdout.write(text)
        if now:
            sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from error


def note(text: str) -> None:
    """Write to standard error; nobody can be told if that fails, and the result does not depend on it."""
    try:
        if text:
            sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def give_up(error: OutputError) -> None:
    """Say that the result did not arrive, and let the interpreter meet nothing at its end that it could fail with."""
    _discard(sys.stdout)
    if not error.unread:
        note(f"error: {error}\n")


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, nowhere."""
    with suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
