"""Plain Python data to nodes, by way of a YAML text, so that faults in it have an excerpt to point at."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.diagnostics import Position, Problems, Span
from axon_compose.language.source._builder import MAX_DEPTH, MAX_NODES
from axon_compose.language.source._nodes import Node
from axon_compose.language.source._reader import read
from axon_compose.language.source._scalars import MAX_DIGITS, is_text
from axon_compose.language.source._text import MAX_BYTES

__all__ = ["Unwritable", "scalar_text", "to_source", "to_yaml"]

# Compiled by what writes the first text, since most commands write none.
# Texts that no reader, of YAML 1.1 or 1.2, takes for anything else when they stand without quotes:
_BARE: Final = r"(?a:=?\(*[A-Za-z_][\w./*()+=%<>|?-]*(?: [\w./*()+=%<>-][\w./*()+=%<>|?-]*)*)"
_WORDS_OF_1_1: Final = frozenset({"y", "n", "yes", "no", "on", "off"})
_ESCAPED: Final = '["\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]'
_SURROGATE: Final = "[\ud800-\udfff]"
#: Parsers look no farther than 1024 characters for the `:` of a key.
_LONG_KEY: Final = 200


class Unwritable(ValueError):
    """Data that YAML cannot hold; `code` is that of the diagnostic."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def to_source(data: Any, file: str, problems: Problems) -> Node | None:
    """Make nodes out of plain Python data, with the limits of `read`.

    The data are written as YAML first and kept in `problems.sources`, so that faults show an excerpt.

    Args:
        data: None, bool, int, float, str, and lists, tuples and mappings with text keys of them.
        file: Name for diagnostics, such as `<dict>`.
        problems: Collects values that YAML cannot hold (AX017), and of all that `read` reports.
    """
    try:
        text = to_yaml(data)
    except Unwritable as fault:
        problems.error(fault.code, str(fault), Span(file, Position(1, 1), Position(1, 1)))
        return None
    return read(text, file, problems)


def to_yaml(data: Any) -> str:
    """Write plain data as YAML that `read` reads back the same.

    Raises:
        Unwritable: A value that YAML cannot hold, or data beyond the limits of `read`.
    """
    size = 0
    lines = []
    for line in _Writer().lines(data, "", 0):
        lines.append(line)
        size += len(line) + 1
        if size > MAX_BYTES:
            raise Unwritable("AX005", f"more than {MAX_BYTES >> 20} MiB of data")
    return "\n".join(lines) + "\n"


class _Writer:
    """Block style, two spaces; counts what it writes."""

    def __init__(self) -> None:
        self._nodes = 0

    def lines(self, value: Any, where: str, depth: int) -> Iterator[str]:
        """The lines of `value`, without indentation; `where` is its place, for messages."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Unwritable("AX009", f"more than {MAX_NODES:,} keys and values")
        if not _nested(value):
            yield _scalar(value, where)
            return
        if depth >= MAX_DEPTH:
            raise Unwritable("AX008", f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._entry(key, item, where, depth)
        else:
            for index, item in enumerate(value):
                yield from _indented("- ", self.lines(item, f"{where}[{index}]", depth + 1))

    def _entry(self, key: Any, item: Any, where: str, depth: int) -> Iterator[str]:
        if not isinstance(key, str):
            raise Unwritable("AX012", f"the key `{key!r:.60}`{_at(where)} is not text")
        here = f"{where}.{key:.60}" if where else f"{key:.60}"
        written = _text(key, here)
        body = self.lines(item, here, depth + 1)
        if len(written) > _LONG_KEY:
            yield f"? {written}"
            yield from _indented(": ", body)
        elif _nested(item):
            yield f"{written}:"
            yield from _indented("  ", body)
        else:
            yield from (f"{written}: {line}" for line in body)


def _indented(head: str, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield head + line
        head = "  "


def _nested(value: Any) -> bool:
    """Whether `value` is a collection that takes lines of its own."""
    return bool(value) if isinstance(value, Mapping | list | tuple) else False


def scalar_text(value: Any) -> str:
    """A value without parts as YAML, fit for every place.

    Raises:
        Unwritable: A value that YAML cannot hold.
    """
    return _scalar(value, "")


def _scalar(value: Any, where: str) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            if value.bit_length() > 4 * MAX_DIGITS:  # Python refuses to print those beyond 4300 digits
                raise Unwritable("AX010", f"the integer{_at(where)} has more than {MAX_DIGITS} digits")
            return int.__repr__(value)
        case float():
            return _float(value)
        case str():
            return _text(value, where)
        case Mapping():
            return "{}"
        case list() | tuple():
            return "[]"
    raise Unwritable("AX017", f"a value of type `{type(value).__name__}`{_at(where)} is not plain data")


def _float(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


def _text(value: str, where: str) -> str:
    if re.fullmatch(_BARE, value) and value.lower() not in _WORDS_OF_1_1 and is_text(value):
        return value
    if re.search(_SURROGATE, value):
        raise Unwritable("AX004", f"a lone surrogate in the text{_at(where)}")
    return f'"{re.sub(_ESCAPED, _escape, value)}"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return "\\" + character if character in '"\\' else f"\\u{ord(character):04x}"


def _at(where: str) -> str:
    return f" at `{where}`" if where else ""
