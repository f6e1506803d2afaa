"""Libraries that only some commands need, and that are therefore not installed by default."""

from __future__ import annotations

from importlib.util import find_spec

from axon_compose.diagnostics import Refusal

__all__ = ["require_library"]


def require_library(module: str, package: str, what: str, instead: str = "") -> None:
    """Refuse what a missing library would be needed for; imports nothing.

    Args:
        module: Its name in Python.
        package: Its name for pip.
        what: What needs it, as in `a PNG`.
        instead: What can be done without it, as in `write a .svg`.

    Raises:
        Refusal: AX506 with what to install.
    """
    if find_spec(module) is None:
        help_ = f"`pip install {package}`" + (f", or {instead}" if instead else "")
        raise Refusal("AX506", f"{what} needs {package}, which is not installed", help_)
