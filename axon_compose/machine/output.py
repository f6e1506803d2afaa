"""Standard output for results alone: whatever else writes there, Python or not, goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

__all__ = ["results_alone"]


@contextmanager
def results_alone(*, to_the_end: bool = False) -> Iterator[None]:
    """Let only `sys.stdout` reach standard output, through a descriptor of its own; descriptor 1 is standard error's.

    So code of components, and what it calls in other languages, cannot get between the lines of a result by
    `os.write(1, …)`, `sys.__stdout__` or `printf`. `print` is the business of `axon_compose.registry.Guard`. Nothing is
    changed where `sys.stdout` is no file of its own, as in tests and notebooks, or a terminal, which shows both anyway
    and is asked for its width.

    Args:
        to_the_end: Leave it so, because the process ends now and buffers of other languages are emptied then.
    """
    before = sys.stdout
    if not isinstance(before, TextIOWrapper) or not _is_descriptor_1(before) or before.isatty():
        yield
        return
    before.flush()
    noise = _standard_error()  # first, so that the result cannot get the number of a closed standard error
    own = os.dup(1)
    sys.stdout = TextIOWrapper(
        open(own, "wb", buffering=0 if before.write_through else -1),  # noqa: SIM115, PTH123  # a descriptor, kept open
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )
    os.dup2(noise, 1)
    os.close(noise)
    try:
        yield
    finally:
        if not to_the_end:
            with suppress(OSError):
                before.flush()  # while it still goes to standard error
            with suppress(OSError):
                sys.stdout.flush()
            os.dup2(own, 1)
            result, sys.stdout = sys.stdout, before
            with suppress(OSError):
                result.close()


def _is_descriptor_1(stream: TextIOWrapper) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):  # none, or closed
        return False


def _standard_error() -> int:
    """A new descriptor for what standard error is, or for nothing if it is closed."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
