"""Imports of a command: without looking for garbage among what they make, and without plugins of pydantic."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["kept", "without_plugins"]


@contextmanager
def kept() -> Iterator[None]:
    """Import modules or load a file inside: what that makes stays, and later collections need not look at it either.

    Processor time of `validate`, medians of 30 interleaved runs, for its imports: 300 to 266 ms while neighbours kept
    the machine busy, 222 to 219 ms on a quiet one. Loading a file takes 4 ms less: half of it are imports too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def without_plugins() -> None:
    """Let pydantic take as given that it has no plugins, which watch what models validate, such as Logfire's.

    Before its first model it would read the entry points of every distribution, by a module for which
    `importlib.metadata` and `email` are imported: a fifteenth of all that `validate` does. That is also so with its own
    switch, `PYDANTIC_DISABLE_PLUGINS`. Where pydantic has looked for plugins already, they stay.
    """
    none = ModuleType("pydantic.plugin._loader", "No plugins, for commands of axon-compose.")

    def of_pydantic(name: str) -> Any:
        """What another release of pydantic has there, which is then taken as it is."""
        if name.startswith("__"):
            raise AttributeError(name)
        del sys.modules[none.__name__]
        return getattr(import_module(none.__name__), name)

    vars(none).update(get_plugins=tuple, __getattr__=of_pydantic)
    sys.modules.setdefault(none.__name__, none)
