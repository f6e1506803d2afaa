"""A YAML text to nodes. Only the parser's event stream is used: no loader, no tags, no YAML 1.1."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from axon_compose.diagnostics import Position, Problems, Span
from axon_compose.language.source._builder import Builder, Halt
from axon_compose.language.source._nodes import Node, Scalar
from axon_compose.language.source._syntax import report_syntax_error
from axon_compose.language.source._text import MAX_BYTES, decode, printable
from axon_compose.machine.files import read_regular

__all__ = ["read", "read_again", "read_file"]

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Bytes of a text whose nodes are kept: the longest family has half of that.
_KEPT: Final = 1 << 14


def read(data: bytes | str, file: str, problems: Problems) -> Node | None:
    """Read one YAML document; never raises, whatever the bytes are.

    Scalars follow the core schema of YAML 1.2. `<<` copies the entries of a mapping, as every editor and most readers
    understand it; keys written beside it win. A faulty part is reported and left out, and reading goes on.

    Args:
        data: UTF-8 bytes or a text, at most 1 MiB.
        file: Name for diagnostics; the text is kept under it in `problems.sources`.
        problems: Collects every fault, AX001 to AX016.

    Returns:
        The root, with the place of everything; None when nothing usable was read.
    """
    text = decode(data, file, problems)
    if text is None:
        return None
    problems.sources[file] = text
    clean = printable(text, file, problems)
    if clean is None:
        return None
    builder = Builder(file, clean, problems)
    try:
        for event in yaml.parse(clean, Loader=_LOADER):
            builder.feed(event)
    except Halt:
        return builder.root
    except yaml.MarkedYAMLError as error:
        report_syntax_error(error, clean, builder.unclosed(), file, problems)
        return None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the Python parser's way to refuse "\UFFFFFFFF"
        problems.error("AX001", f"the text is not YAML: {error}", _start(file))
        return None
    return _not_empty(builder.root, file, problems)


def read_again(data: bytes, file: str, problems: Problems) -> Node | None:
    """Read one YAML document that was probably read before, as a base is for every file that extends it; see `read`.

    The nodes of the last short texts without faults are kept, for nobody changes nodes.
    """
    known = _faultless(data, file) if len(data) <= _KEPT else None
    if known is None:
        return read(data, file, problems)
    root, problems.sources[file] = known
    return root


@lru_cache(maxsize=128)
def _faultless(data: bytes, file: str) -> tuple[Node, str] | None:
    """The nodes and the text, or None if there is anything to report."""
    problems = Problems()
    root = read(data, file, problems)
    return None if root is None or len(problems) else (root, problems.sources[file])


def read_file(path: Path, problems: Problems, file: str | None = None) -> Node | None:
    """Read a file, no more of it than the limit; see `read_again`.

    Args:
        path: A regular file.
        problems: Collects every fault.
        file: Name for diagnostics, the path itself unless given.

    Raises:
        OSError: The file cannot be read; see `axon_compose.machine.files.open_regular`.
    """
    return read_again(read_regular(path, MAX_BYTES + 1), file or str(path), problems)


def _not_empty(root: Node | None, file: str, problems: Problems) -> Node | None:
    empty = root is None or (isinstance(root, Scalar) and root.value is None)
    if empty:
        problems.error(
            "AX006", "the file is empty", _start(file), help="`axon-compose explain AX006` shows a first file"
        )
    return None if empty else root


def _start(file: str) -> Span:
    return Span(file, Position(1, 1), Position(1, 1))
