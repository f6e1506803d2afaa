"""The first stages in sequence: a text or a mapping to a `Compiled`, the record for all later stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from axon_compose.diagnostics import Diagnostic, Problems
from axon_compose.language.config import Config
from axon_compose.language.document import Document, read_document
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import Node, read, read_again, read_file, to_source
from axon_compose.plan._plan import Plan
from axon_compose.plan._resolve import resolve_plan
from axon_compose.record import record
from axon_compose.registry import LookupFailure, Registry

__all__ = ["Compiled", "Given", "Overlay", "Text", "compile_node", "compile_source", "compile_text", "is_shipped"]

#: Lays values from elsewhere, such as a config.json, over the nodes of a file before they are validated.
Overlay: TypeAlias = Callable[[MappingNode, Problems], MappingNode]


@record
class Compiled:
    """A description without errors: read, validated and planned.

    Attributes:
        document: The file with its bases merged in.
        warnings: Warnings, which do not stop a build.
        config: The config.json that the sizes come from, or None.
        sources: Name to text of the files that diagnostics point into.
    """

    document: Document
    _plan: Plan
    warnings: tuple[Diagnostic, ...] = ()
    config: Config | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        plan = self._plan
        size = sum(use.size for use in plan.uses())
        return f"<{type(self).__name__} {plan.name}: {len(plan.layers)} layers, {size:,} parameters>"

    @property
    def name(self) -> str:
        """The file's `name`."""
        return self._plan.name

    def plan(self) -> Plan:
        """The model layer by layer: names, shapes, cache slots and masks. Imports no mlx."""
        return self._plan

    @cached_property
    def data(self) -> dict[str, Any]:
        """The merged description as plain data; `load` reads it back."""
        return self.document.to_dict()


class Text(NamedTuple):
    """The bytes of a file that is not read by its path, such as those of standard input.

    Attributes:
        data: YAML.
        file: Name for diagnostics.
        directory: Folder in which `extends` may look.
    """

    data: bytes
    file: str
    directory: Path


#: What a description is given as.
Given: TypeAlias = "str | Path | Mapping[str, Any] | Text"


def compile_source(
    source: Given,
    *,
    settings: Iterable[str] = (),
    config: Config | None = None,
    overlay: Overlay | None = None,
    registry: Registry | None = None,
    problems: Problems | None = None,
) -> Compiled:
    """Run the stages up to the plan on a file, a shipped architecture or a mapping.

    Args:
        source: Path of a YAML file, name of a shipped architecture, the description as a mapping, or its text.
        settings: Texts of `--set`.
        config: The config.json that the overlay was made of.
        overlay: Values to be laid over the file.
        registry: The plugins to use; the installed ones unless given.
        problems: Collects faults and warnings.

    Raises:
        ArchitectureError: With every fault that was found.
        OSError: If the file cannot be read.
    """
    registry = registry or Registry.installed()
    problems = Problems() if problems is None else problems  # one without faults counts as false
    if isinstance(source, Mapping):
        node, directory = to_source(dict(source), "<dict>", problems), Path.cwd()
    elif isinstance(source, Text):
        node, directory = read(source.data, source.file, problems), source.directory
    else:
        path = _find(source, registry)
        node, directory = read_file(path, problems, str(source)), path.parent
    return _compiled(node, directory, tuple(settings), config, overlay, registry, problems)


def compile_text(
    data: bytes,
    file: str,
    directory: Path,
    *,
    settings: Iterable[str] = (),
    config: Config | None = None,
    overlay: Overlay | None = None,
    registry: Registry,
    problems: Problems,
) -> Compiled:
    """Run the stages up to the plan on the bytes of a file; see `compile_source`.

    Args:
        data: YAML.
        file: Name for diagnostics.
        directory: Folder in which `extends` may look.
        settings: Texts of `--set`.
        config: The config.json that the overlay was made of.
        overlay: Values to be laid over the file.
        registry: The plugins.
        problems: Collects faults and warnings.

    Raises:
        ArchitectureError: With every fault that was found.
    """
    return _compiled(read_again(data, file, problems), directory, tuple(settings), config, overlay, registry, problems)


def compile_node(
    node: Node | None,
    directory: Path,
    *,
    config: Config | None = None,
    registry: Registry,
    problems: Problems,
) -> Compiled:
    """Run the stages up to the plan on the nodes of a file, whose places may be in several texts.

    Args:
        node: The file.
        directory: Folder in which `extends` may look.
        config: The config.json that the sizes came from.
        registry: The plugins.
        problems: Collects faults and warnings.

    Raises:
        ArchitectureError: With every fault that was found.
    """
    return _compiled(node, directory, (), config, None, registry, problems)


def is_shipped(source: str, registry: Registry) -> bool:
    """Whether a text is the name of a shipped architecture, and not that of a regular file."""
    return _find(source, registry) != Path(source)


def _find(source: str | Path, registry: Registry) -> Path:
    """A path, or the file of a name; a folder of that name does not count."""
    path = Path(source)
    if isinstance(source, str) and not path.is_file() and path.suffix not in (".yaml", ".yml"):
        try:
            return registry.architecture_path(source)
        except LookupFailure:
            pass  # the OSError of the missing file says it better
    return path


def _compiled(
    node: Node | None,
    directory: Path,
    settings: tuple[str, ...],
    config: Config | None,
    overlay: Overlay | None,
    registry: Registry,
    problems: Problems,
) -> Compiled:
    document = read_document(
        node, problems, find=registry.architecture_path, directory=directory, settings=settings, overlay=overlay
    )
    plan = resolve_plan(document, registry, problems) if document else None
    problems.raise_if_any()
    assert document is not None
    assert plan is not None
    return Compiled(document, plan, tuple(problems), config, dict(problems.sources))
