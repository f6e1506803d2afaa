"""Which paths are those of GGUF files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, TypeGuard

__all__ = ["gguf_files", "gguf_parts", "is_gguf"]

_PART: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)


def is_gguf(path: Any) -> TypeGuard[str | Path]:
    """Whether a path is that of a GGUF file, by its name; the file may be missing."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() == ".gguf" and not Path(path).is_dir()


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder that can be named, sorted: of several parts the first."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".gguf") if folder.is_dir() else []
    return [path for path in found if (match := _PART.fullmatch(path.name)) is None or int(match[2]) == 1]


def gguf_parts(path: Path) -> list[Path]:
    """The files of the model that begins in this one, by its name: `NAME-00001-of-00003.gguf` is followed by two."""
    match = _PART.fullmatch(path.name)
    if match is None or int(match[2]) != 1:
        return [path]
    return [path, *(path.with_name(f"{match[1]}-{part:05}-of-{match[3]}.gguf") for part in range(2, int(match[3]) + 1))]
