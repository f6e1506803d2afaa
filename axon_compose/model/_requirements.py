"""A built folder on a machine that lacks what it was built with: what to install, instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from axon_compose.diagnostics import ArchitectureError, Diagnostic, Refusal

__all__ = ["saying_what_to_install", "without_tracebacks"]


@contextmanager
def saying_what_to_install(plugins: Mapping[str, str]) -> Iterator[None]:
    """Name the packages in every message of a description that does not compile, if these are not the recorded ones.

    Args:
        plugins: Namespace to `distribution version`, as the build recorded them; folders of version 0.1 have none.

    Raises:
        ArchitectureError: With the same faults.
    """
    try:
        yield
    except ArchitectureError as error:
        advice = "; ".join(filter(None, map(_advice, plugins.values())))
        if not advice:
            raise
        told = [_with(diagnostic, advice) for diagnostic in error.diagnostics]
        raise ArchitectureError(told, error.sources, error.dropped) from None


def _with(diagnostic: Diagnostic, advice: str) -> Diagnostic:
    return replace(diagnostic, message=f"{diagnostic.message}: {advice}", help=None)


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
    """Let faults of a model that nobody catches end the process with their message alone, as in our own commands."""
    before: Any = sys.excepthook
    if getattr(before, "_axon_compose", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, ArchitectureError | Refusal):
            sys.stderr.write(f"{error}\n")
        else:
            before(kind, error, traceback)

    hook._axon_compose = True  # type: ignore[attr-defined]
    sys.excepthook = hook
