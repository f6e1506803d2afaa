"""Whether a path is that of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

__all__ = ["is_gguf"]


def is_gguf(path: Any) -> TypeGuard[str | Path]:
    """Whether a path is that of a GGUF file, by its name; the file may be missing."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() == ".gguf" and not Path(path).is_dir()
