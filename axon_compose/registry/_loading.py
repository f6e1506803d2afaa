"""Load one plugin, alone: either everything that it brings is right, or one line says what is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import pluggy

from axon_compose.diagnostics import nearest
from axon_compose.record import record
from axon_compose.registry import _hooks
from axon_compose.registry._code import MODULE
from axon_compose.registry._components import NAME, PATIENCE, Components, DeferredSpecs, PluginError
from axon_compose.registry._discovery import IN_MEMORY, Candidate
from axon_compose.registry._guard import Guard, Raised
from axon_compose.registry._records import architecture_fault
from axon_compose.registry._specs import ArchitectureSpec, ComponentSpec
from axon_compose.registry._tasks import TaskSpec, task_fault

__all__ = ["Contents", "load", "load_tasks"]

#: What a plugin may implement.
_HOOKS: Final = ("axon_components", "axon_architectures", "axon_tasks")


@record
class Contents:
    """What a plugin brings, by the name inside its namespace."""

    components: Components
    architectures: Mapping[str, ArchitectureSpec]


def load(candidate: Candidate) -> Contents:
    """Import a plugin, ask its hooks and check every record, those of deferred components when they are asked for.

    Raises:
        PluginError: It cannot be used; nothing of it remains registered. `AXON_COMPOSE_PLUGIN_DEBUG=1` prints the
            traceback to stderr.
    """
    ours = candidate.namespace == "core" and candidate.version != IN_MEMORY
    return _ours(candidate) if ours else _load(candidate)


@lru_cache
def _ours(candidate: Candidate) -> Contents:
    """The built-in records, which never change: asked for and checked once in a process, not for every file."""
    return _load(candidate)


def _load(candidate: Candidate) -> Contents:
    try:
        with Guard(PATIENCE):
            components, architectures = _ask(candidate)
        return Contents(Components(components, core=candidate.namespace == "core"), architectures)
    except Raised as raised:
        raise raised.error if isinstance(raised.error, PluginError) else PluginError(str(raised)) from raised


def load_tasks(candidate: Candidate) -> Mapping[str, TaskSpec]:
    """Ask a plugin for its tasks, by the name inside its namespace, and check every record.

    Raises:
        PluginError: They cannot be used.
    """
    try:
        with Guard(PATIENCE):
            manager = _manager(candidate)
            found = _records(manager.hook.axon_tasks(), "axon_tasks", TaskSpec)
            for name, spec in found.items():
                if not isinstance(name, str) or not NAME.fullmatch(name):
                    raise PluginError(f"`{name}` is not a task name: write it as {NAME.pattern}")
                if fault := task_fault(spec):
                    raise PluginError(f"task `{name}`: {fault}")
    except Raised as raised:
        raise raised.error if isinstance(raised.error, PluginError) else PluginError(str(raised)) from raised
    return found


def _manager(candidate: Candidate) -> pluggy.PluginManager:
    """A manager for this plugin alone: whatever goes wrong goes away with it."""
    plugin = candidate.load()
    manager = pluggy.PluginManager(_hooks.GROUP)
    manager.add_hookspecs(_hooks)
    manager.register(plugin, candidate.namespace)
    _check_hooks(manager, plugin)
    return manager


def _ask(candidate: Candidate) -> tuple[dict[str, ComponentSpec | DeferredSpecs], dict[str, ArchitectureSpec]]:
    manager = _manager(candidate)
    components = _records(manager.hook.axon_components(), "axon_components", ComponentSpec, DeferredSpecs)
    for name, given in components.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(f"`{name}` is not a component name: write it as {NAME.pattern}")
        if isinstance(given, DeferredSpecs) and not MODULE.fullmatch(given.place):
            raise PluginError(f"`{given.place}` is not of the form `package.module:attribute`")
    architectures = _records(manager.hook.axon_architectures(), "axon_architectures", ArchitectureSpec)
    if fault := next(filter(None, map(architecture_fault, architectures.values())), None):
        raise PluginError(fault)
    return components, architectures


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        optional = all(i.optionalhook for i in caller.get_hookimpls())
        if not caller.has_spec() and not optional:
            match = nearest(caller.name, _HOOKS)
            raise PluginError(f"there is no hook `{caller.name}`" + (f"; did you mean `{match}`?" if match else ""))
    if not callers:
        unmarked = [name for name in _HOOKS if hasattr(plugin, name)]
        raise PluginError(
            f"`{unmarked[0]}` lacks `@hookimpl`" if unmarked else "no function is marked with `@hookimpl`"
        )


def _records(results: Iterable[Any], hook: str, *kinds: type[Any]) -> dict[str, Any]:
    """What the hook's implementations returned, by name; what is deferred stands under each of its names."""
    wanted = kinds[0].__name__
    found: dict[str, Any] = {}
    for result in results:
        if not isinstance(result, Iterable) or isinstance(result, str | Mapping):
            raise PluginError(f"`{hook}` returned {type(result).__name__}, not an iterable of {wanted}")
        for item in result:
            if not isinstance(item, kinds):
                raise PluginError(f"`{hook}` gave {type(item).__name__} where {wanted} is expected")
            for name in item.names if isinstance(item, DeferredSpecs) else (item.name,):
                if name in found:
                    raise PluginError(f"`{hook}` gave `{name}` twice")
                found[name] = item
    return found
