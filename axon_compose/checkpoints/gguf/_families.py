"""Which shipped architecture reads which GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from axon_compose.checkpoints.gguf._metadata import Metadata
from axon_compose.diagnostics import Problems
from axon_compose.language.document import FormulaError
from axon_compose.language.families import GgufFamily, files_of, gguf_family_of
from axon_compose.registry import Registry

__all__ = ["Family", "family_of", "gguf_families"]


class Family(NamedTuple):
    """A shipped architecture with a section `gguf`."""

    name: str
    path: Path
    reads: GgufFamily


def gguf_families(registry: Registry) -> list[Family]:
    """Every family that reads GGUF files, in the order of their names."""
    found = ((name, path, gguf_family_of(path)) for name, path in files_of(registry, ["gguf"]))
    return [Family(name, path, reads) for name, path, reads in found if reads]


def family_of(metadata: Metadata, registry: Registry, problems: Problems) -> Family | None:
    """The family that reads a file: of several for one architecture, the one whose condition holds."""
    known = gguf_families(registry)
    wanted = metadata.file.architecture
    found = [family for family in known if wanted in family.reads.architectures]
    found.sort(key=lambda family: family.reads.when is None)
    for family in found:
        if family.reads.when is None or _holds(family.reads.when, metadata):
            return family
    names = sorted({name for family in known for name in family.reads.architectures})
    near = problems.nearest(wanted, names)
    problems.error(
        "AX606",
        f"no family reads the GGUF architecture `{wanted[:60]}`" if wanted else "no `general.architecture` is given",
        metadata.span(None, problems),
        help=f"did you mean `{near}`?" if near else f"known architectures: {', '.join(names)}",
    )
    return None


def _holds(condition: str, metadata: Metadata) -> bool:
    try:
        return bool(metadata.value(condition))
    except FormulaError:
        return False
