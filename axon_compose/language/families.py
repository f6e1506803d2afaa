"""Whether a file is a family: which checkpoints and GGUF files it says that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from axon_compose.diagnostics import Problems
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import plain, read_file

__all__ = ["GgufFamily", "gguf_family_of", "mentions", "model_types_of", "reads"]


#: What these sections say of the files that are read.
_KEYS: Final = {"huggingface": ("model_types", "architectures"), "gguf": ("architectures", "when")}


def model_types_of(path: Path) -> tuple[str, ...] | None:
    """The `model_types` of the section `huggingface`; None for a file that is no family, or cannot be read."""
    found = reads(path)
    return None if found is None else found[0]


def reads(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The `model_types` and the `architectures` of the section `huggingface`; None as for `model_types_of`."""
    written = _written(path, "huggingface")
    types, classes = written.get("model_types"), written.get("architectures")
    if not isinstance(types, list):
        return None
    return tuple(map(str, types)), tuple(map(str, classes)) if isinstance(classes, list) else ()


def mentions(path: Path, names: Iterable[str]) -> bool:
    """Whether one of the names is anywhere in a file: what has to be parsed to find a family is a few of hundreds."""
    try:
        text = path.read_bytes() if path.is_file() else b""
    except OSError:
        return False
    return any(name.encode() in text for name in names)


class GgufFamily(NamedTuple):
    """Which GGUF files a family reads: their `general.architecture`, and a condition where others read it too."""

    architectures: tuple[str, ...]
    when: str | None


def gguf_family_of(path: Path) -> GgufFamily | None:
    """What the section `gguf` of a file itself says, not that of a base; None for one that reads no GGUF file."""
    written = _written(path, "gguf")
    names, when = written.get("architectures"), written.get("when")
    if not isinstance(names, list) or not names:
        return None
    return GgufFamily(tuple(map(str, names)), when if isinstance(when, str) else None)


def _written(path: Path, section: str) -> Mapping[str, Any]:
    """Keys of a section as plain values; none for a file without it, or that cannot be read.

    Every checkpoint is looked up among all families, so a file is parsed once and again only after it has changed.
    """
    try:
        state = path.stat()
    except OSError:
        return {}
    return _sections(path, state.st_mtime_ns, state.st_size).get(section, {})


@lru_cache(maxsize=4096)
def _sections(path: Path, _changed: int, _size: int) -> Mapping[str, Mapping[str, Any]]:
    node = read_file(path, Problems())
    found = {name: node.get(name) for name in _KEYS} if isinstance(node, MappingNode) else {}
    return {
        name: {key: plain(value) for key in _KEYS[name] if (value := section.get(key)) is not None}
        for name, section in found.items()
        if isinstance(section, MappingNode)
    }
