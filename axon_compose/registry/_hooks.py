"""What a plugin may implement: one hook for each kind of contribution.

A plugin is a module (or any object) with functions marked by `hookimpl`, named in the entry-point group
`axon_compose`. The name of the entry point is its namespace:

    [project.entry-points.axon_compose]
    acme = "axon_acme"

A hook returns or yields records. New arguments and new hooks may be added; an implementation takes only the
arguments that it wants, so old plugins keep working.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pluggy

from axon_compose.registry._components import DeferredSpecs
from axon_compose.registry._specs import ArchitectureSpec, ComponentSpec
from axon_compose.registry._tasks import TaskSpec

__all__ = ["GROUP", "axon_architectures", "axon_components", "axon_tasks", "hookimpl", "hookspec"]

#: The entry-point group, and pluggy's project name.
GROUP: Final = "axon_compose"

hookspec: Final = pluggy.HookspecMarker(GROUP)
hookimpl: Final = pluggy.HookimplMarker(GROUP)


@hookspec
def axon_components() -> Iterable[ComponentSpec | DeferredSpecs]:  # type: ignore[empty-body]
    """The components that the plugin provides, as records or where these are; nothing here may import mlx."""


@hookspec
def axon_architectures() -> Iterable[ArchitectureSpec]:  # type: ignore[empty-body]
    """The YAML architectures that the plugin ships, for `extends: namespace/name`."""


@hookspec
def axon_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """The skill tasks and data that the plugin provides, as records; asked only when somebody asks for tasks."""
