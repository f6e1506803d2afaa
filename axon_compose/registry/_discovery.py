"""Which plugins are installed, from metadata alone: no plugin is imported here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, Final

from axon_compose.record import record
from axon_compose.registry._failure import one_line
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

    @classmethod
    def of(cls, entry_point: EntryPoint) -> Candidate:
        """The candidate that an entry point stands for."""
        name, version = _identity(entry_point.dist) if entry_point.dist else ("unknown", "0")
        return cls(entry_point.name, name, version, entry_point.load)


@cache
def installed() -> tuple[Candidate, ...]:
    """Every entry point of the group, read once in a process."""
    found: dict[str, list[Candidate]] = {}
    for distribution in distributions():
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


def normalized(name: str) -> str:
    """A distribution name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _candidates(distribution: Distribution) -> Iterator[Candidate]:
    """The candidates of one distribution; damaged metadata of another package must not stop the tool."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeDecodeError):
        return
    if f"[{GROUP}]" not in text:  # most have nothing to say: look before parsing
        return
    try:
        mine = [e for e in distribution.entry_points if e.group == GROUP]
    except Exception as error:
        yield Candidate("?", *_identity(distribution), _raiser(f"damaged entry points: {one_line(error)}"))
        return
    yield from map(Candidate.of, mine)


def _identity(distribution: Distribution) -> tuple[str, str]:
    try:
        metadata: Mapping[str, Any] = distribution.metadata  # type: ignore[assignment]
        return str(metadata.get("Name") or "unknown"), str(metadata.get("Version") or "0")
    except Exception:  # what a missing file raises depends on the version of Python
        return "unknown", "0"


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
