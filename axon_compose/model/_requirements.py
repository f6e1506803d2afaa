"""A built folder on a machine that lacks what it was built with: what to install, instead of a traceback."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType

from axon_compose.diagnostics import ArchitectureError, Diagnostic, Refusal

__all__ = ["saying_what_to_install", "without_tracebacks"]


@contextmanager
def saying_what_to_install(plugins: Mapping[str, str]) -> Iterator[None]:
    """Name packages where a description does not compile, if those that are here are not the recorded ones.

    Args:
        plugins: Namespace to `distribution version`, as the build recorded them; folders of version 0.1 have none.

    Raises:
        ArchitectureError: With the same faults; the last one says what to install.
    """
    try:
        yield
    except ArchitectureError as error:
        advice = "; ".join(filter(None, map(_advice, plugins.values())))
        if not advice:
            raise
        *others, last = error.diagnostics
        told = Diagnostic(last.code, ": ".join(filter(None, (last.message, last.label, advice))))
        raise ArchitectureError([*others, told], error.sources, error.dropped) from None


def _advice(recorded: str) -> str:
    """What to install in place of what is there, if that is another version or nothing."""
    name, _, built = recorded.partition(" ")
    try:
        found = version(name)
    except PackageNotFoundError:
        found = None
    if found == built or built == "in-memory":
        return ""
    here = f"here is {found}" if found else "which is not installed"
    return f"this model was built with {name} {built}, {here}; `pip install '{name}=={built}'`"


def without_tracebacks() -> None:
    """Let faults of a model that nobody catches end a process, or a thread, with their message alone."""
    if sys.excepthook.__module__ == __name__:
        return
    whole, thread = sys.excepthook, threading.excepthook

    def of_process(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not _told(error):
            whole(kind, error, traceback)

    def of_thread(arguments: threading.ExceptHookArgs) -> None:
        if not _told(arguments.exc_value):
            thread(arguments)

    sys.excepthook, threading.excepthook = of_process, of_thread


def _told(error: BaseException | None) -> bool:
    """Whether it is ours, and written to standard error."""
    if not isinstance(error, ArchitectureError | Refusal):
        return False
    sys.stderr.write(f"{error}\n")
    return True
