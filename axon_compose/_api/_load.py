"""`load`: a file, a name, a mapping or a checkpoint to an `Architecture`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from axon_compose._api._architecture import Architecture
from axon_compose.diagnostics import Problems
from axon_compose.document import read_document
from axon_compose.plan import resolve_plan
from axon_compose.registry import LookupFailure, Registry
from axon_compose.source import MAX_BYTES, Node, read, to_source

if TYPE_CHECKING:
    from axon_compose.huggingface import Config

__all__ = ["compile_text", "load"]


def load(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    checkpoint: str | Path | None = None,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Architecture:
    """Read, validate and plan a description.

    Args:
        source: Path of a YAML file, name of a shipped architecture, or the description as a mapping. With a checkpoint
            it may be left out: the family that reads its model type is taken.
        checkpoint: Folder with a config.json, from which a family file takes its sizes.
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
    config = _config(Path(checkpoint), problems) if checkpoint is not None else None
    if source is None:
        source = _family(config, registry, problems)
    given: _Given = {"settings": settings, "config": config, "registry": registry, "problems": problems}
    if isinstance(source, Mapping):
        return _compiled(to_source(dict(source), "<dict>", problems), Path.cwd(), **given)
    path = _find(source, registry)
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    return compile_text(data, str(source), path.parent, **given)


class _Given(TypedDict):
    settings: Iterable[str]
    config: Config | None
    registry: Registry
    problems: Problems


def _config(folder: Path, problems: Problems) -> Config | None:
    from axon_compose.huggingface import read_config  # only checkpoints need it

    return read_config(folder, problems)


def _family(config: Config | None, registry: Registry, problems: Problems) -> str:
    """The name of the family of a checkpoint."""
    from axon_compose.huggingface import family_of

    family = family_of(config, registry, problems) if config else None
    problems.raise_if_any()
    if family is None:
        raise TypeError("give a source, or a checkpoint")
    return family.name


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
    config: Config | None = None,
    registry: Registry,
    problems: Problems,
) -> Architecture:
    """Run the stages up to the plan on the bytes of a file.

    Args:
        data: YAML.
        file: Name for diagnostics.
        directory: Folder in which `extends` may look.
        settings: Texts of `--set`.
        config: The config.json of a checkpoint, for a family file.
        registry: The plugins.
        problems: Collects faults and warnings.

    Raises:
        ArchitectureError: With every fault that was found.
    """
    node = read(data, file, problems)
    return _compiled(node, directory, settings=settings, config=config, registry=registry, problems=problems)


def _compiled(
    node: Node | None,
    directory: Path,
    *,
    settings: Iterable[str],
    config: Config | None,
    registry: Registry,
    problems: Problems,
) -> Architecture:
    overlay = None
    if config is not None:
        from axon_compose.huggingface import overlay_of

        overlay = overlay_of(config)
    document = read_document(
        node, problems, find=registry.architecture_path, directory=directory, settings=settings, overlay=overlay
    )
    plan = resolve_plan(document, registry, problems) if document else None
    problems.raise_if_any()
    assert document is not None
    assert plan is not None
    return Architecture(document, tuple(problems), config, dict(problems.sources), _plan=plan)
