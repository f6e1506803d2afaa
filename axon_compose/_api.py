"""The front door from Python: `load` a description, look at it, build it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_compose.diagnostics import Diagnostic, Problems
from axon_compose.document import Document, read_document
from axon_compose.plan import Plan, resolve_plan
from axon_compose.registry import LookupFailure, Registry
from axon_compose.source import MAX_BYTES, read, to_source

if TYPE_CHECKING:
    from axon_compose.model import LanguageModel

__all__ = ["Architecture", "compile_text", "load"]


@dataclass(frozen=True)
class Architecture:
    """A description that holds together: read, validated and planned.

    Attributes:
        document: The file with its bases merged in.
        warnings: What was noticed and does not stop a build.
    """

    document: Document
    warnings: tuple[Diagnostic, ...] = ()
    _plan: Plan = field(kw_only=True, repr=False)

    @property
    def name(self) -> str:
        """The file's `name`."""
        return self._plan.name

    def plan(self) -> Plan:
        """The model layer by layer: names, shapes, cache slots and masks. Imports no mlx."""
        return self._plan

    def build(self, *, dtype: str = "float32", seed: int = 0, allow_large: bool = False) -> LanguageModel:
        """The model with random weights; see `axon_compose.model.build`.

        Args:
            dtype: `float32`, `bfloat16` or `float16`.
            seed: Of the random weights.
            allow_large: Do not compare the size with the memory that is free.

        Raises:
            CheckpointError: If the weights do not fit into memory.
        """
        from axon_compose.model import build

        return build(self._plan, dtype=dtype, seed=seed, allow_large=allow_large)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The merged description as plain data; `load` reads it back."""
        return self.document.to_dict()


def load(
    source: str | Path | Mapping[str, Any], *, settings: Iterable[str] = (), registry: Registry | None = None
) -> Architecture:
    """Read, validate and plan a description.

    Args:
        source: Path of a YAML file, name of a shipped architecture, or the description as a mapping.
        settings: `key.key=value` texts, laid over the file as `--set` does.
        registry: The plugins to use; the installed ones unless given.

    Returns:
        The architecture.

    Raises:
        ArchitectureError: With every fault that was found.
        OSError: If the file cannot be read.
    """
    registry = registry or Registry.installed()
    problems = Problems()
    if isinstance(source, Mapping):
        node = to_source(dict(source), "<dict>", problems)
        document = read_document(node, problems, find=registry.architecture_path, settings=settings)
        return _planned(document, registry, problems)
    path = _find(source, registry)
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    return compile_text(data, str(source), path.parent, settings=settings, registry=registry, problems=problems)


def _find(source: str | Path, registry: Registry) -> Path:
    path = Path(source)
    if isinstance(source, str) and not path.exists() and path.suffix not in (".yaml", ".yml"):
        try:
            return registry.architecture_path(source)
        except LookupFailure:
            pass  # the OSError of the missing file says it better
    return path


def compile_text(
    data: bytes,
    file: str,
    directory: Path,
    *,
    settings: Iterable[str] = (),
    registry: Registry,
    problems: Problems,
) -> Architecture:
    """Run the stages up to the plan on the bytes of a file.

    Args:
        data: YAML.
        file: Name for diagnostics.
        directory: Folder in which `extends` may look.
        settings: Texts of `--set`.
        registry: The plugins.
        problems: Collects faults and warnings.

    Raises:
        ArchitectureError: With every fault that was found.
    """
    node = read(data, file, problems)
    document = read_document(node, problems, find=registry.architecture_path, directory=directory, settings=settings)
    return _planned(document, registry, problems)


def _planned(document: Document | None, registry: Registry, problems: Problems) -> Architecture:
    plan = resolve_plan(document, registry, problems) if document else None
    problems.raise_if_any()
    assert document is not None
    assert plan is not None
    return Architecture(document, tuple(problems), _plan=plan)
