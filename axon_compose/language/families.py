"""Whether a file is a family: which checkpoints it says that it reads."""

from __future__ import annotations

from pathlib import Path

from axon_compose.diagnostics import Problems
from axon_compose.language.source import Mapping, plain, read_file

__all__ = ["model_types_of"]


def model_types_of(path: Path) -> tuple[str, ...] | None:
    """The `model_types` of the section `huggingface`; None for a file that is no family, or cannot be read."""
    node = read_file(path, Problems())
    section = node.get("huggingface") if isinstance(node, Mapping) else None
    types = plain(section).get("model_types") if isinstance(section, Mapping) else None
    return tuple(map(str, types)) if isinstance(types, list) else None
