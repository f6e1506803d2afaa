"""The components of a plugin by name; those that it defers are imported when one of them is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Final

from axon_compose.record import record
from axon_compose.registry._guard import Guard, Raised
from axon_compose.registry._records import component_fault, defaults_fault
from axon_compose.registry._specs import ComponentSpec

__all__ = ["NAME", "PATIENCE", "Components", "DeferredSpecs", "PluginError"]

#: What namespaces and components may be called.
NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
#: An import may bring large packages along.
PATIENCE: Final = 6.0


class PluginError(Exception):
    """Why a plugin cannot be used, in one line."""


@record
class DeferredSpecs:
    """Records of components that are imported when one of them is named, so that a file costs only what it uses.

    `axon_components` yields it in the place of the records.

    Attributes:
        place: `package.module:attribute` of an iterable of `ComponentSpec`.
        names: What they are called, all of them, in their order.
    """

    place: str
    names: tuple[str, ...]


class Components(Mapping[str, ComponentSpec]):
    """The records of a plugin, by the name inside its namespace, in its order.

    Args:
        given: What `axon_components` gave, by name.
        core: Whether it is ours, which alone has defaults.

    Looking a record up raises `PluginError` if it, or one that is imported with it, cannot be used.
    """

    def __init__(self, given: Mapping[str, ComponentSpec | DeferredSpecs], *, core: bool) -> None:
        self._given = dict(given)
        self._core = core
        self._check(spec for spec in given.values() if isinstance(spec, ComponentSpec))

    def __getitem__(self, name: str) -> ComponentSpec:
        found = self._given[name]
        if isinstance(found, DeferredSpecs):
            specs = _imported(found)
            self._check(specs.values())
            self._given |= specs
            return specs[name]
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._given  # the mixin of `Mapping` would look it up

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def _check(self, specs: Iterable[ComponentSpec]) -> None:
        known = [spec for spec in self._given.values() if isinstance(spec, ComponentSpec)]
        specs = list(specs)
        if fault := defaults_fault([*known, *specs]):
            raise PluginError(fault)
        for spec in specs:
            try:
                with Guard():
                    fault = component_fault(spec, core=self._core)
            except Raised as raised:
                fault = str(raised)
            if fault:
                raise PluginError(f"component `{spec.name}`: {fault}")


def _imported(deferred: DeferredSpecs) -> dict[str, ComponentSpec]:
    """The records themselves, by name."""
    module, _, attribute = deferred.place.partition(":")
    try:
        with Guard(PATIENCE):
            specs = list(getattr(import_module(module), attribute))
    except Raised as raised:
        raise PluginError(str(raised)) from raised
    if not all(isinstance(spec, ComponentSpec) for spec in specs):
        raise PluginError(f"`{deferred.place}` is not an iterable of ComponentSpec")
    names = [spec.name for spec in specs]
    if names != list(deferred.names):
        raise PluginError(f"`{deferred.place}` has {', '.join(names)}, not {', '.join(deferred.names)}")
    return dict(zip(names, specs, strict=True))
