"""Whether a file is a family: which checkpoints and GGUF files it says that it reads."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from axon_compose.diagnostics import Problems
from axon_compose.language.source import MAX_BYTES, plain, read
from axon_compose.machine.files import read_regular
from axon_compose.registry import Registry

__all__ = ["GgufFamily", "files_of", "gguf_family_of", "mentions", "model_types_of", "reads"]


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
    """Whether one of the names is anywhere in a file: what has to be parsed to find a family is a few of hundreds."""
    file = _file(str(path))
    return file is not None and any(name.encode() in file.text for name in names)


def files_of(registry: Registry, naming: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """The name and the file of every architecture that is installed, in the order of their names.

    Args:
        registry: Knows the files.
        naming: Only files that have one of these texts in them.
    """
    for name, spec in sorted(registry.architectures().items()):
        if not naming or mentions(spec.path, naming):
            yield name.removeprefix("core/"), Path(spec.path)


class _File:
    """A file as it is between two changes: its text, and its sections once they are asked for."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.text = read_regular(Path(path), MAX_BYTES + 1)

    @cached_property
    def sections(self) -> Mapping[str, Any]:
        node = read(self.text, self._path, Problems())
        whole = plain(node) if node is not None else None
        return {name: whole.get(name) for name in ("huggingface", "gguf")} if isinstance(whole, dict) else {}


def _file(path: str) -> _File | None:
    """A file, or None if it cannot be read.

    Every checkpoint is looked up among all families, so a file is read and parsed once, and again only after it has
    changed.
    """
    try:
        state = os.stat(path)  # noqa: PTH116  # asked of every family for every checkpoint: no `Path` is made
        return _opened(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _opened(path: str, _changed: int, _size: int) -> _File:
    return _File(path)


def _section(path: Path, name: str) -> Mapping[str, Any]:
    """A section of a file as plain data, empty if it has none or cannot be read."""
    file = _file(str(path))
    found = file.sections.get(name) if file else None
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> tuple[str, ...] | None:
    return tuple(map(str, value)) if isinstance(value, list) else None
