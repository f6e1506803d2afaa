"""Whether a file is a family: which checkpoints it says that it reads."""

from __future__ import annotations

from pathlib import Path

from axon_compose.diagnostics import Problems
from axon_compose.language.source import Mapping, plain, read_file

__all__ = ["model_types_of", "reads"]


def model_types_of(path: Path) -> tuple[str, ...] | None:
    """The `model_types` of the section `huggingface`; None for a file that is no family, or cannot be read."""
    found = reads(path)
    return None if found is None else found[0]


def reads(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The `model_types` and the `architectures` of the section `huggingface`; None as for `model_types_of`."""
    node = read_file(path, Problems())
    section = node.get("huggingface") if isinstance(node, Mapping) else None
    written = plain(section) if isinstance(section, Mapping) else {}
    types, classes = written.get("model_types"), written.get("architectures")
    if not isinstance(types, list):
        return None
    return tuple(map(str, types)), tuple(map(str, classes)) if isinstance(classes, list) else ()
