"""Load one plugin, alone: either everything that it brings is right, or one line says what is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pluggy
from pydantic import BaseModel

from axon_compose.diagnostics import nearest
from axon_compose.registry import _hooks, _json_schema
from axon_compose.registry._discovery import Candidate
from axon_compose.registry._guard import Guard, Raised
from axon_compose.registry._options import option_names
from axon_compose.registry._pydantic import definition_fault
from axon_compose.registry._specs import KINDS, ArchitectureSpec, ComponentSpec

__all__ = ["NAME", "Contents", "PluginError", "load"]

#: What namespaces and components may be called.
NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
#: An import may bring large packages along.
_PATIENCE: Final = 6.0


class PluginError(Exception):
    """Why a plugin cannot be used, in one line."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a plugin brings, by the name inside its namespace."""

    components: Mapping[str, ComponentSpec]
    architectures: Mapping[str, ArchitectureSpec]


def load(candidate: Candidate) -> Contents:
    """Import a plugin, ask its hooks and check every record.

    Raises:
        PluginError: It cannot be used; nothing of it remains registered. `AXON_COMPOSE_PLUGIN_DEBUG=1` prints the
            traceback to stderr.
    """
    try:
        with Guard(_PATIENCE):
            found = _ask(candidate)
        for component in found.components.values():
            _check_component(component, core=candidate.namespace == "core")
    except Raised as raised:
        raise raised.error if isinstance(raised.error, PluginError) else PluginError(str(raised)) from raised
    return found


def _ask(candidate: Candidate) -> Contents:
    plugin = candidate.load()
    # A manager for this plugin alone: whatever goes wrong goes away with it.
    manager = pluggy.PluginManager(_hooks.GROUP)
    manager.add_hookspecs(_hooks)
    manager.register(plugin, candidate.namespace)
    _check_hooks(manager, plugin)
    components = _records(manager.hook.axon_components(), ComponentSpec, "axon_components")
    for name in components:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(f"`{name}` is not a component name: write it as {NAME.pattern}")
    architectures = _records(manager.hook.axon_architectures(), ArchitectureSpec, "axon_architectures")
    _check_defaults(components.values())
    for architecture in architectures.values():
        _check_architecture(architecture)
    return Contents(components, architectures)


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    specified = ("axon_components", "axon_architectures")
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        optional = all(i.optionalhook for i in caller.get_hookimpls())
        if not caller.has_spec() and not optional:
            match = nearest(caller.name, specified)
            raise PluginError(f"there is no hook `{caller.name}`" + (f"; did you mean `{match}`?" if match else ""))
    if not callers:
        unmarked = [name for name in specified if hasattr(plugin, name)]
        raise PluginError(
            f"`{unmarked[0]}` lacks `@hookimpl`" if unmarked else "no function is marked with `@hookimpl`"
        )


def _records(results: Iterable[Any], record: type[Any], hook: str) -> dict[str, Any]:
    """What the hook's implementations returned, by name."""
    found: dict[str, Any] = {}
    for result in results:
        if not isinstance(result, Iterable) or isinstance(result, str | Mapping):
            raise PluginError(f"`{hook}` returned {type(result).__name__}, not an iterable of {record.__name__}")
        for item in result:
            if not isinstance(item, record):
                raise PluginError(f"`{hook}` gave {type(item).__name__} where {record.__name__} is expected")
            if item.name in found:
                raise PluginError(f"`{hook}` gave `{item.name}` twice")
            found[item.name] = item
    return found


def _check_component(spec: ComponentSpec, *, core: bool) -> None:
    try:
        with Guard():
            fault = _fault(spec, core=core)
    except Raised as raised:
        fault = str(raised)
    if fault:
        raise PluginError(f"component `{spec.name}`: {fault}")


def _fault(spec: ComponentSpec, *, core: bool) -> str | None:
    """What is wrong with a record, or None."""
    if spec.kind not in KINDS:
        match = nearest(str(spec.kind), KINDS)
        return f"unknown kind `{spec.kind}`; " + (f"did you mean `{match}`?" if match else f"one of {', '.join(KINDS)}")
    if fault := _options_fault(spec.options):
        return fault
    if not isinstance(spec.module, str) or not _MODULE.fullmatch(spec.module):
        return f"module `{spec.module}` is not of the form `package.module:attribute`"
    for name in ("cache", "params"):
        if not callable(getattr(spec, name)):
            return f"`{name}` must be a function of options and dims"
    for name in ("active", "flops", "touched", "saved", "recomputed", "shrink"):
        if getattr(spec, name) is not None and not callable(getattr(spec, name)):
            return f"`{name}` must be a function or None"
    if spec.mask not in ("dense", "banded"):
        return f"unknown mask `{spec.mask}`; one of dense, banded"
    if spec.default and not core:
        return "only `core` may mark a default"
    for value, option in spec.reads.items():
        if option is not None and option not in option_names(spec):
            return f"`reads` takes `{value}` from the option `{option}`, which does not exist"
    return None


def _options_fault(options: object) -> str | None:
    if isinstance(options, Mapping):
        return _json_schema.schema_fault(options)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return "`options` is neither a pydantic model nor a JSON Schema"
    config = options.model_config
    if config.get("extra") != "forbid" or not config.get("strict"):
        return f'`{options.__name__}` needs `model_config = ConfigDict(strict=True, extra="forbid")`'
    return definition_fault(options)


def _check_defaults(components: Iterable[ComponentSpec]) -> None:
    chosen: dict[str, str] = {}
    for spec in components:
        if spec.default and chosen.setdefault(spec.kind, spec.name) != spec.name:
            raise PluginError(f"two defaults of kind {spec.kind}: `{chosen[spec.kind]}` and `{spec.name}`")


def _check_architecture(spec: ArchitectureSpec) -> None:
    if not isinstance(spec.name, str) or not _ARCHITECTURE.fullmatch(spec.name):
        raise PluginError(f"`{spec.name}` is not an architecture name: write it as {_ARCHITECTURE.pattern}")
    if not Path(spec.path).is_absolute():
        raise PluginError(f"architecture `{spec.name}`: the path `{spec.path}` is not absolute")
    if not Path(spec.path).is_file():
        raise PluginError(f"architecture `{spec.name}`: there is no file `{spec.path}`")
