"""Which plugins are installed, from metadata alone: no plugin is imported here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial, reduce
from importlib import import_module
from typing import Final

from axon_compose.machine import distributions
from axon_compose.machine.distributions import Distribution, normalized
from axon_compose.record import record
from axon_compose.registry._hooks import GROUP, hookimpl
from axon_compose.registry._specs import ArchitectureSpec, ComponentSpec
from axon_compose.registry._tasks import TaskSpec

__all__ = ["IN_MEMORY", "Candidate", "in_memory", "installed", "normalized"]

#: The one distribution that may claim the namespace `core`.
OURS: Final = "axon-compose"
#: The version of a plugin that is no installed distribution.
IN_MEMORY: Final = "in-memory"


@record
class Candidate:
    """One entry point: a namespace, who claims it, and how to import it.

    Attributes:
        namespace: The entry point's name.
        distribution: Name of the installed distribution.
        version: Its version.
        load: Imports the plugin and returns the object that implements the hooks.
    """

    namespace: str
    distribution: str
    version: str
    load: Callable[[], object]

    @property
    def owner(self) -> str:
        """Distribution and version, e.g. `axon-acme 1.2`."""
        return f"{self.distribution} {self.version}"


@cache
def installed() -> tuple[Candidate, ...]:
    """Every entry point of the group, read once in a process."""
    found: dict[str, list[Candidate]] = {}
    for distribution in distributions.installed():
        candidates = list(_candidates(distribution))
        if candidates:  # the first on the path hides later copies of the same distribution
            found.setdefault(normalized(candidates[0].distribution), candidates)
    return tuple(candidate for candidates in found.values() for candidate in candidates)


def in_memory(namespace: str, plugin: object, owner: str | None = None) -> Candidate:
    """A candidate for something that is not installed: a module, an object with hooks, or a list of records."""
    distribution, _, version = (owner or f"{namespace} {IN_MEMORY}").rpartition(" ")
    if isinstance(plugin, Sequence) and not isinstance(plugin, str):
        plugin = _Records(plugin)
    return Candidate(namespace, distribution, version, lambda: plugin)


def _candidates(distribution: Distribution) -> Iterator[Candidate]:
    """The candidates of one distribution; damaged metadata of another package must not stop the tool."""
    try:
        text = distribution.text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return
    if f"[{GROUP}]" not in text:  # most have nothing to say: look before parsing
        return
    identity = _field(distribution, "Name", "unknown"), _field(distribution, "Version", "0")
    for line in _entries(text):
        name, equals, place = map(str.strip, line.partition("="))
        load = partial(_load, place) if equals else _raiser(f"damaged entry points: `{line}`")
        yield Candidate(name if equals else "?", *identity, load)


def _entries(text: str) -> Iterator[str]:
    """The lines of our group."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == GROUP and line and not line.startswith("#"):
            yield line


def _load(place: str) -> object:
    """What an entry point names: `package.module`, or `package.module:attribute`."""
    module, _, attribute = place.partition("[")[0].partition(":")  # without extras, which nobody reads
    return reduce(getattr, filter(None, attribute.strip().split(".")), import_module(module.strip()))


def _field(distribution: Distribution, name: str, otherwise: str) -> str:
    try:
        return distribution.field(name) or otherwise
    except (OSError, UnicodeDecodeError):
        return otherwise


def _raiser(message: str) -> Callable[[], object]:
    def load() -> object:
        raise ValueError(message)

    return load


class _Records:
    """A plugin made of records alone."""

    def __init__(self, records: Sequence[object]) -> None:
        self._records = records

    @hookimpl
    def axon_components(self) -> list[ComponentSpec]:
        return [r for r in self._records if not isinstance(r, ArchitectureSpec | TaskSpec)]  # type: ignore[misc]

    @hookimpl
    def axon_architectures(self) -> list[ArchitectureSpec]:
        return [r for r in self._records if isinstance(r, ArchitectureSpec)]

    @hookimpl
    def axon_tasks(self) -> list[TaskSpec]:
        return [r for r in self._records if isinstance(r, TaskSpec)]
