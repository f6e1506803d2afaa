"""Whether a file is a family: which checkpoints and GGUF files it says that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from axon_compose.diagnostics import Problems
from axon_compose.language.source import plain, read_file
from axon_compose.machine.files import read_regular

__all__ = ["GgufFamily", "gguf_family_of", "mentions", "model_types_of", "reads"]


class GgufFamily(NamedTuple):
    """Which GGUF files a family reads: their `general.architecture`, and a condition where others read it too."""

    architectures: tuple[str, ...]
    when: str | None


def model_types_of(path: Path) -> tuple[str, ...] | None:
    """The `model_types` of the section `huggingface`; None for a file that is no family, or cannot be read."""
    found = reads(path)
    return None if found is None else found[0]


def reads(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The `model_types` and the `architectures` of the section `huggingface`; None as for `model_types_of`."""
    written = _section(path, "huggingface")
    types = _texts(written.get("model_types"))
    return None if types is None else (types, _texts(written.get("architectures")) or ())


def gguf_family_of(path: Path) -> GgufFamily | None:
    """What the section `gguf` of a file itself says, not that of a base; None for one that reads no GGUF file."""
    written = _section(path, "gguf")
    names, when = _texts(written.get("architectures")), written.get("when")
    return GgufFamily(names, when if isinstance(when, str) else None) if names else None


def mentions(path: str | Path, names: Iterable[str]) -> bool:
    """Whether one of the names is anywhere in a file: what has to be parsed to find a family is a few of hundreds.

    Like what is parsed, the text of a file is read once and again only after it has changed.
    """
    try:
        text = _content(str(path), *_state(path))
    except OSError:
        return False
    return any(name.encode() in text for name in names)


def _state(path: str | Path) -> tuple[int, int]:
    """Differs after a file has changed."""
    state = os.stat(path)  # noqa: PTH116  # asked of every family whenever a checkpoint is read: no `Path` is made
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4096)
def _content(path: str, _changed: int, _size: int) -> bytes:
    return read_regular(Path(path))


def _texts(value: Any) -> tuple[str, ...] | None:
    return tuple(map(str, value)) if isinstance(value, list) else None


def _section(path: Path, name: str) -> Mapping[str, Any]:
    """A section of a file as plain data, empty if it has none or cannot be read.

    Every checkpoint is looked up among all families, so a file is parsed once and again only after it has changed.
    """
    try:
        found = _parsed(path, *_state(path)).get(name)
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=4096)
def _parsed(path: Path, _changed: int, _size: int) -> Mapping[str, Any]:
    """The sections of a file that say what it reads."""
    node = read_file(path, Problems())
    whole = plain(node) if node is not None else None
    return {name: whole.get(name) for name in ("huggingface", "gguf")} if isinstance(whole, dict) else {}
