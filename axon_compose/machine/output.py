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
    `os.write(1, …)`, `sys.__stdout__` or `printf`. `print` is the business of `axon_compose.registry.Guard`. Where
    `sys.stdout` is no file of its own, as in tests and notebooks, nothing is changed.

    Args:
        to_the_end: Leave it so, because the process ends now and buffers of other languages are emptied then.
    """
    before = sys.stdout
    if not isinstance(before, TextIOWrapper) or not _is_descriptor_1(before):
        yield
        return
    before.flush()
    own = os.dup(1)
    sys.stdout = open(  # noqa: SIM115, PTH123  # a descriptor; open to the end of the block or the process
        own,
        "w",
        encoding=before.encoding,
        errors=before.errors,
        buffering=1 if before.line_buffering or before.write_through else -1,
    )
    _standard_error_as(1)
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


def _standard_error_as(descriptor: int) -> None:
    try:
        os.dup2(2, descriptor)
    except OSError:  # it is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
