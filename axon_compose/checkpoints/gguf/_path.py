"""Which paths are those of GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

__all__ = ["gguf_files", "is_gguf"]


def is_gguf(path: Any) -> TypeGuard[str | Path]:
    """Whether a path is that of a GGUF file, by its name; the file may be missing."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() == ".gguf" and not Path(path).is_dir()


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder that can be named, sorted: of several parts the first."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".gguf") if folder.is_dir() else []
    return [path for path in found if "-of-" not in path.name or "-00001-of-" in path.name]
