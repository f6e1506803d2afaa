"""Modules of a model by their paths."""

from __future__ import annotations

from typing import Any

__all__ = ["module_at"]


def module_at(module: Any, path: str) -> Any:
    """What is at a dotted path below a module, such as `layers.3.attn`; the module itself for an empty one."""
    for key in filter(None, path.split(".")):
        module = module[int(key)] if isinstance(module, list) else module[key]
    return module
