"""Where texts come from: files, folders, patterns, lines of JSON, standard input, and the texts that Python carries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from axon_compose.diagnostics import CheckpointError, nearest
from axon_compose.machine.files import open_regular

__all__ = ["PYTHON_DOCS", "Sources", "Survey"]

PYTHON_DOCS: Final = "python-docs"
#: Files whose lines are objects of JSON.
_LINES: Final = (".jsonl", ".ndjson")
#: How much of a file in a folder is looked at to tell a text from something else.
_LOOK: Final = 8192


@dataclass(frozen=True)
class Survey:
    """What there is before a token is made.

    Attributes:
        digest: Of all documents in their order.
        sizes: Bytes of each document in UTF-8.
    """

    digest: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Sources:
    """Texts, read anew each time and never all at once.

    Attributes:
        names: Paths of files and folders, patterns, `-` for standard input, or `python-docs`.
        field: Where the text is in a line of JSON.
        piped: What standard input gave, if it is among the names.
    """

    names: tuple[str, ...]
    field: str = "text"
    piped: bytes = b""

    @classmethod
    def of(cls, texts: Sources | str | Path | Iterable[str | Path]) -> Sources:
        """One name, several, or what was made of them already."""
        if isinstance(texts, Sources):
            return texts
        return cls((str(texts),) if isinstance(texts, str | Path) else tuple(map(str, texts)))

    def documents(self) -> Iterator[str]:
        """Every document that is not empty: a file, a line of JSON, or a topic of Python's.

        Raises:
            CheckpointError: AX810 a source cannot be read as text.
            OSError: If a file cannot be read.
        """
        return (text for text in self._all() if text)

    def survey(self) -> Survey:
        """Read everything once.

        Raises:
            CheckpointError: AX810; AX811 there is no text.
            OSError: If a file cannot be read.
        """
        digest = sha256()
        sizes = tuple(_added(digest, text) for text in self.documents())
        if not sizes:
            raise CheckpointError("AX811", f"there is no text in {self}", "name files with text, or `python-docs`")
        return Survey(digest.hexdigest(), sizes)

    def again(self, survey: Survey) -> Iterator[str]:
        """The documents once more, as they were surveyed.

        Raises:
            CheckpointError: AX810; also, after the last, if they are others by now.
            OSError: If a file cannot be read.
        """
        digest = sha256()
        for text in self.documents():
            _added(digest, text)
            yield text
        if digest.hexdigest() != survey.digest:
            hint = "wait until whatever writes them has finished, and begin again"
            raise CheckpointError("AX810", f"the texts in {self} have changed while they were read", hint)

    def __str__(self) -> str:
        return ", ".join(f"`{name}`" for name in self.names)

    def _all(self) -> Iterator[str]:
        for name in self.names:
            if name == "-":
                yield _decoded(self.piped, "standard input")
            elif name == PYTHON_DOCS and not Path(name).exists():
                yield from _python_docs()
            else:
                for path in _files(name):
                    yield from self._file(path)

    def _file(self, path: Path) -> Iterator[str]:
        with open_regular(path) as file:
            if path.suffix not in _LINES:
                yield _decoded(file.read(), f"`{path}`")
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"`{path}`, line {number}"
                    yield self._field_of(_decoded(line, where), where)

    def _field_of(self, line: str, where: str) -> str:
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CheckpointError("AX810", f"{where}: not JSON: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get(self.field), str):
            texts = [key for key, each in value.items() if isinstance(each, str)] if isinstance(value, dict) else []
            near = nearest(self.field, texts) or (texts[0] if texts else None)
            hint = f"say where the text is: `--field {near}`" if near else "each line is an object with a text"
            raise CheckpointError("AX810", f"{where}: no text under `{self.field}`", hint)
        text: str = value[self.field]
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{where}: the text has half of a surrogate pair, at character {error.start}"
            raise CheckpointError("AX810", message, "leave the line out, or the character") from error
        return text


def _added(digest: Any, text: str) -> int:
    """Bytes of a document in UTF-8, which goes into a digest so that it can be told from the next."""
    content = text.encode()
    digest.update(len(content).to_bytes(8, "little") + content)
    return len(content)


def _python_docs() -> Iterator[str]:
    from pydoc_data.topics import topics

    yield from (topics[name] for name in sorted(topics))


def _files(name: str) -> list[Path]:
    """The files of a path or a pattern, in an order that does not depend on the file system.

    Raises:
        CheckpointError: AX810 a pattern matches no file, or it is neither a file nor a folder.
    """
    path = Path(name)
    if not name:
        raise CheckpointError("AX810", "an empty name is no text", "is a variable of the shell empty?")
    if path.is_dir():
        return _texts_in(path)
    if path.exists() and not path.is_file():
        raise CheckpointError("AX810", f"`{name}` is not a regular file", "a pipe is read as standard input, with `-`")
    if path.exists() or not has_magic(name):
        return [path]
    found = sorted(Path(each) for each in glob(name, recursive=True))  # noqa: PTH207  # it may be absolute
    files = [each for each in found if each.is_file()]
    if not files:
        raise CheckpointError("AX810", f"`{name}` matches no file", "a pattern is like `texts/**/*.md`, in quotes")
    return files


def _texts_in(folder: Path) -> list[Path]:
    """The files under a folder that are texts; hidden ones, and those that hold zero bytes, are passed over."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        with open_regular(path) as file:
            if b"\0" not in file.read(_LOOK):
                found.append(path)
    return found


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        hint = "write it again as UTF-8; `iconv -f LATIN1 -t UTF-8` does of what is Latin-1"
        raise CheckpointError("AX810", f"{where}: not UTF-8, at byte {error.start}", hint) from error
