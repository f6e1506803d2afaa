"""Code of a plugin that a record names as text: how it is written, and how it is imported."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from axon_compose.diagnostics import nearest
from axon_compose.registry._guard import DEBUG_HELP, Guard, PluginFault, Raised

__all__ = ["MODULE", "load_code"]

MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def load_code(place: str, who: str) -> Callable[..., Any]:
    """Import what a record names.

    Args:
        place: `package.module:attribute[.attribute]`.
        who: What messages call its owner, with its distribution.

    Raises:
        PluginFault: `AX208`, it cannot be imported, is not there or cannot be called.
    """
    module_name, _, attributes = place.partition(":")
    message = f"the code of {who} cannot be imported"
    try:
        with Guard(None):
            found: Any = import_module(module_name)
            for name in attributes.split("."):
                if not hasattr(found, name):
                    match = nearest(name, dir(found))
                    help_ = f"did you mean `{match}`?" if match else None
                    raise PluginFault("AX208", f"{message}: `{module_name}` has no `{attributes}`", help_)
                found = getattr(found, name)
    except Raised as raised:
        raise PluginFault("AX208", f"{message}: `import {module_name}` fails: {raised}", DEBUG_HELP) from raised
    if not callable(found):
        raise PluginFault("AX208", f"{message}: `{place}` cannot be called")
    return found  # type: ignore[no-any-return]
