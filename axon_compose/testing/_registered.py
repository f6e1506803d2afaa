"""A component under test, by the name of its type or as a bare record."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from axon_compose.registry import ComponentSpec, Registry

__all__ = ["registered"]

#: Namespace of a record that is given without a plugin.
_UNDER_TEST: Final = "under_test"


def registered(spec: ComponentSpec | str, registry: Registry | None = None) -> tuple[str, ComponentSpec, Registry]:
    """A type name, its record and a registry that knows it; a bare record gets a namespace of its own.

    Raises:
        LookupFailure: If there is no such type.
    """
    if isinstance(spec, str):
        registry = registry or Registry.installed()
        return spec, registry.component(spec), registry
    registry = Registry.with_plugins({_UNDER_TEST: [replace(spec, default=False)]})
    return f"{_UNDER_TEST}/{spec.name}", spec, registry
