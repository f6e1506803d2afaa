"""The registry: names in a file to component records, each plugin imported alone and only when it is named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from axon_compose.record import record
from axon_compose.registry._components import NAME, PluginError
from axon_compose.registry._data_files import data_dir
from axon_compose.registry._discovery import IN_MEMORY, OURS, Candidate, in_memory, installed, normalized
from axon_compose.registry._failure import LookupFailure, suggestion
from axon_compose.registry._guard import DEBUG_HELP
from axon_compose.registry._loading import Contents, load, load_tasks
from axon_compose.registry._specs import ArchitectureSpec, ComponentSpec, Kind
from axon_compose.registry._tasks import TaskSpec

__all__ = ["PluginStatus", "Registry"]

_DISABLE: Final = "AXON_COMPOSE_DISABLE_PLUGINS"


@record
class PluginStatus:
    """Status of one installed plugin.

    Attributes:
        namespace: The prefix of its types in a file.
        distribution: The distribution that brings it.
        version: Its version.
        status: `ok`, `failed`, `conflict` (several distributions claim the namespace) or `disabled`.
        cause: Why it is not ok, one line; empty if it is.
        components: Full names of its components.
        architectures: Full names of its architectures.
    """

    namespace: str
    distribution: str
    version: str
    status: Literal["ok", "failed", "conflict", "disabled"]
    cause: str = ""
    components: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


class Registry:
    """Every component and architecture of the installed plugins.

    Args:
        candidates: The plugins; `Registry.installed()` takes those of the environment.

    Every lookup that fails raises `LookupFailure`.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._refused: list[PluginStatus] = []
        self._claims: dict[str, list[Candidate]] = {}
        self._loaded: dict[str, Contents | PluginError] = {}
        self._names: dict[int, str] = {}
        self._disabled = {name.strip() for name in os.environ.get(_DISABLE, "").split(",")} - {""}
        for candidate in candidates:
            self._claim(candidate)

    @classmethod
    def installed(cls) -> Registry:
        """The registry of this environment. Nothing is imported yet."""
        return cls(installed())

    @classmethod
    def with_plugins(cls, plugins: Mapping[str, object], owners: Mapping[str, str] | None = None) -> Registry:
        """The registry of this environment, with further plugins that are not installed.

        Args:
            plugins: Namespace to a module, an object with hooks, or a list of records. They take the place of
                installed plugins of the same namespace.
            owners: Namespace to distribution and version that messages name; in memory unless given.
        """
        kept = (candidate for candidate in installed() if candidate.namespace not in plugins)
        owners = owners or {}
        return cls([*kept, *(in_memory(name, plugin, owners.get(name)) for name, plugin in plugins.items())])

    def component(self, type_name: str) -> ComponentSpec:
        """The record of a type as written in a file: `namespace/name`, or `name` for those of `core`."""
        namespace, name = self._split(type_name)
        components = self._contents(namespace, type_name).components
        if name in components:
            return self._record(namespace, name)
        if type_name in self._claims:
            help_: str | None = f"types of that plugin are written `{type_name}/name`"
        else:
            prefix = f"{namespace}/" if "/" in type_name else ""
            written = [prefix + known for known in components]
            help_ = suggestion(type_name, written, f"components of `{namespace}`")
        label = f"`{namespace}` has no `{name}`" if "/" in type_name else "no built-in component has this name"
        raise LookupFailure("AX202", f"unknown component `{type_name}`", label, help_)

    def default(self, kind: Kind) -> ComponentSpec:
        """The component of `core` that stands where a file names none."""
        for name in self._contents("core", kind).components:
            spec = self._record("core", name)
            if spec.kind == kind and spec.default:
                return spec
        raise LookupFailure("AX207", f"there is no default {kind}", "", f"name a component of kind {kind} in the file")

    def components(self, kind: Kind | None = None) -> dict[str, ComponentSpec]:
        """Full names to records of every plugin that works, `core` first; imports all of them."""
        found = {
            f"{namespace}/{name}": spec
            for namespace, contents in self._working()
            for name, spec in contents.components.items()
        }
        return {name: spec for name, spec in found.items() if kind is None or spec.kind == kind}

    def task(self, name: str) -> TaskSpec:
        """The record of a task as written on the command line: `namespace/name`, or `name` for those of `core`."""
        namespace, rest = self._split(name)
        tasks = self._tasks(namespace, name)
        if spec := tasks.get(rest):
            return spec
        prefix = f"{namespace}/" if "/" in name else ""
        label = f"`{namespace}` has no task `{rest}`" if prefix else "no built-in task has this name"
        help_ = suggestion(name, [prefix + known for known in tasks], f"tasks of `{namespace}`")
        raise LookupFailure("AX901", f"unknown task `{name}`", label, help_)

    def tasks(self) -> dict[str, TaskSpec]:
        """Full names to tasks of every plugin that works, `core` first; imports all of them."""
        found: dict[str, TaskSpec] = {}
        for namespace, _ in self._working():
            try:
                tasks = self._tasks(namespace, namespace)
            except LookupFailure:
                continue  # reported when one of them is named
            found |= {f"{namespace}/{name}": spec for name, spec in tasks.items()}
        return found

    def _tasks(self, namespace: str, wanted: str) -> Mapping[str, TaskSpec]:
        self._contents(namespace, wanted)
        try:
            return load_tasks(self._claims[namespace][0])
        except PluginError as error:
            owner = self._claims[namespace][0].owner
            label = f"{owner}: {error}"
            raise LookupFailure("AX203", f"tasks of `{namespace}` cannot be used", label, DEBUG_HELP) from error

    def full_name(self, spec: ComponentSpec) -> str:
        """`namespace/name` of a record that this registry gave out."""
        return self._names[id(spec)]

    def owner(self, spec: ComponentSpec) -> str:
        """Distribution and version of a record that this registry gave out."""
        return self.distribution(self.full_name(spec).partition("/")[0])

    def distribution(self, namespace: str) -> str:
        """Distribution and version that bring a namespace, e.g. `axon-acme 1.2`."""
        self._contents(namespace, namespace)
        return self._claims[namespace][0].owner

    def architectures(self) -> dict[str, ArchitectureSpec]:
        """Names for `extends`: the shipped ones as they are, those of plugins with their namespace; imports all."""
        found = {name: ArchitectureSpec(name, str(path)) for name, path in _shipped().items()}
        for namespace, contents in self._working():
            found |= {f"{namespace}/{name}": spec for name, spec in contents.architectures.items()}
        return found

    def architecture_path(self, name: str) -> Path:
        """The file of a shipped architecture, or of a plugin's (`namespace/name`)."""
        namespace, slash, rest = name.partition("/")
        if slash and namespace != "core":
            known = {n: Path(a.path) for n, a in self._contents(namespace, name).architectures.items()}
        else:
            namespace, rest = "", rest or namespace
            known = dict(_shipped())
        if rest in known:
            return known[rest]
        written = [f"{namespace}/{n}" if namespace else n for n in known]
        label = (
            f"`{namespace}` ships no architecture of this name"
            if namespace
            else "no shipped architecture has this name"
        )
        help_ = suggestion(name, written, "architectures")
        raise LookupFailure("AX209", f"unknown architecture `{name}`", label, help_)

    def statuses(self) -> list[PluginStatus]:
        """What became of every plugin, `core` first; imports all of them."""
        found = [self._status(ns, candidate) for ns in self._namespaces() for candidate in self._claims[ns]]
        return found + self._refused

    def _claim(self, candidate: Candidate) -> None:
        namespace = candidate.namespace
        ours = normalized(candidate.distribution) == OURS or candidate.version == IN_MEMORY
        if not NAME.fullmatch(namespace):
            self._refuse(candidate, "failed", f"`{namespace}` cannot be a namespace: write it as {NAME.pattern}")
        elif namespace == "core" and not ours:
            self._refuse(candidate, "failed", f"the namespace `core` belongs to {OURS}")
        elif normalized(candidate.distribution) in self._disabled and namespace not in self._disabled:
            self._refuse(candidate, "disabled", f"the distribution is named in {_DISABLE}")
        else:
            self._claims.setdefault(namespace, []).append(candidate)

    def _refuse(self, candidate: Candidate, status: Literal["failed", "disabled"], cause: str) -> None:
        refused = PluginStatus(candidate.namespace, candidate.distribution, candidate.version, status, cause)
        self._refused.append(refused)

    def _split(self, type_name: str) -> tuple[str, str]:
        namespace, slash, name = type_name.partition("/")
        if not slash:
            namespace, name = "core", type_name
        if not NAME.fullmatch(namespace) or not NAME.fullmatch(name):
            label = "written as `name` or `namespace/name`, in lower case"
            lower = type_name.lower().replace(" ", "_")
            spelt = lower != type_name and all(NAME.fullmatch(part) for part in lower.split("/", 1))
            raise LookupFailure(
                "AX210",
                f"`{type_name}` is not the name of a type",
                label,
                f"did you mean `{lower}`?" if spelt else None,
            )
        return namespace, name

    def _contents(self, namespace: str, wanted: str) -> Contents:
        """What a namespace holds; `wanted` is the name that somebody asks for."""
        if self._reason(namespace) == "disabled":
            label = f"the plugin is disabled by {_DISABLE}"
            raise LookupFailure("AX205", f"plugin `{namespace}` is disabled", label, f"remove it from {_DISABLE}")
        if namespace not in self._claims:
            raise self._unknown(namespace, wanted)
        if self._reason(namespace) == "conflict":
            owners = [candidate.owner for candidate in self._claims[namespace]]
            help_ = f"uninstall one of them, or name its distribution in {_DISABLE}"
            raise LookupFailure("AX204", f"plugin `{namespace}` is claimed twice", f"by {' and '.join(owners)}", help_)
        contents = self._load(namespace)
        if isinstance(contents, PluginError):
            raise self._unusable(namespace, contents)
        return contents

    def _record(self, namespace: str, name: str) -> ComponentSpec:
        """A record that a namespace holds."""
        try:
            spec = self._contents(namespace, name).components[name]
        except PluginError as error:
            self._loaded[namespace] = error
            raise self._unusable(namespace, error) from error
        self._names[id(spec)] = f"{namespace}/{name}"
        return spec

    def _unusable(self, namespace: str, error: PluginError) -> LookupFailure:
        label = f"{self._claims[namespace][0].owner}: {error}"
        return LookupFailure("AX203", f"plugin `{namespace}` cannot be used", label, DEBUG_HELP)

    def _unknown(self, namespace: str, wanted: str) -> LookupFailure:
        if namespace == "core":
            help_: str | None = "install axon-compose itself; in a checkout: pip install -e ."
            return LookupFailure("AX201", "the built-in components are not installed", "", help_)
        if refused := next((s for s in self._refused if s.namespace == namespace), None):
            label = f"{refused.distribution} {refused.version}: {refused.cause}"
            return LookupFailure("AX203", f"plugin `{namespace}` cannot be used", label)
        label = f"no installed plugin provides `{namespace}`"
        help_ = suggestion(namespace, self._namespaces(), "installed plugins")
        return LookupFailure("AX201", f"unknown plugin `{namespace}` in `{wanted}`", label, help_)

    def _load(self, namespace: str) -> Contents | PluginError:
        if namespace not in self._loaded:
            try:
                self._loaded[namespace] = load(self._claims[namespace][0])
            except PluginError as error:
                self._loaded[namespace] = error
        return self._loaded[namespace]

    def _load_all(self, namespace: str) -> Contents | PluginError:
        """What a namespace holds, with every record."""
        contents = self._load(namespace)
        if isinstance(contents, Contents):
            try:
                self._names |= {id(spec): f"{namespace}/{name}" for name, spec in contents.components.items()}
            except PluginError as error:
                self._loaded[namespace] = error
        return self._loaded[namespace]

    def _reason(self, namespace: str) -> Literal["disabled", "conflict"] | None:
        """Why a namespace may not even be loaded."""
        if namespace in self._disabled:
            return "disabled"
        return "conflict" if len(self._claims.get(namespace, ())) > 1 else None

    def _namespaces(self) -> list[str]:
        return sorted(self._claims, key=lambda namespace: (namespace != "core", namespace))

    def _working(self) -> Iterable[tuple[str, Contents]]:
        for namespace in self._namespaces():
            contents = None if self._reason(namespace) else self._load_all(namespace)
            if isinstance(contents, Contents):
                yield namespace, contents

    def _status(self, namespace: str, candidate: Candidate) -> PluginStatus:
        identity = (namespace, candidate.distribution, candidate.version)
        match self._reason(namespace):
            case "disabled":
                return PluginStatus(*identity, "disabled", f"named in {_DISABLE}")
            case "conflict":
                others = [c.owner for c in self._claims[namespace] if c is not candidate]
                return PluginStatus(*identity, "conflict", f"also claimed by {' and '.join(others)}")
        contents = self._load_all(namespace)
        if isinstance(contents, PluginError):
            return PluginStatus(*identity, "failed", str(contents))
        names = ([f"{namespace}/{name}" for name in part] for part in (contents.components, contents.architectures))
        return PluginStatus(*identity, "ok", "", *map(tuple, names))


def _shipped() -> Mapping[str, Path]:
    folder = data_dir("architectures")
    return _files(folder, folder.stat().st_mtime_ns)


@lru_cache
def _files(folder: Path, _changed: int) -> Mapping[str, Path]:
    """By name; listed once, and again only after files have come or gone: every look-up of a name asks."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".yaml"))  # noqa: PTH208  # no path for each
    return MappingProxyType({name.removesuffix(".yaml"): folder / name for name in names})
