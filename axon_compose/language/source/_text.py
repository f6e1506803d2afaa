"""Bytes to a text that the YAML parser can be trusted with; everything odd is reported with its place."""

from __future__ import annotations

import codecs
import re
from functools import cache
from itertools import islice
from typing import Final

from axon_compose.diagnostics import Position, Problems, Span

__all__ = ["MAX_BYTES", "decode", "position", "printable"]

#: Ten times the largest plausible description.
MAX_BYTES: Final = 1 << 20

_LINE_BREAK: Final = re.compile(r"\r\n?|\n")
#: Texts that need no closer look, as most are.
_PLAIN: Final = re.compile(r"[\t\n\r -~]*")
# The C parser compares every %TAG with all before it; tags are refused anyway.
_TAG_DIRECTIVE: Final = re.compile(r"(?:^|[\r\n])(%TAG)")
_SHOWN: Final = 5


def decode(data: bytes | str, file: str, problems: Problems) -> str | None:
    """Return the text of `data`, or None when it is not worth parsing.

    Args:
        data: UTF-8 with or without a byte order mark, or a text.
        file: Name for diagnostics.
        problems: Collects AX003 (encoding) and AX005 (size); bad bytes become U+FFFD, so that parsing can go on.
    """
    if _size(data) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES >> 20} MiB"
        problems.error("AX005", message, _first(file), help="a description of a model is a few hundred lines at most")
        return None
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problems.error("AX003", "the file is UTF-16, not UTF-8", _first(file), help="save it as UTF-8")
        return None
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        text = data.decode("utf-8", errors="replace")
        before = data[: error.start].decode("utf-8")
        message = f"byte 0x{data[error.start]:02x} is not valid UTF-8"
        span = _character(before + "?", len(before), file)
        problems.error("AX003", message, span, label="not UTF-8", help="save the file as UTF-8")
        return text


def printable(text: str, file: str, problems: Problems) -> str | None:
    """Return `text` with every character that YAML forbids replaced; report them (AX004).

    None when the text is made to keep the parser busy (AX011).
    """
    tags = list(_TAG_DIRECTIVE.finditer(text))
    if tags:
        span = _character(text, tags[0].start(1), file, 4)
        problems.error("AX011", "a tag directive", span, label="tags are not supported", help="remove the line")
        if len(tags) > 1:
            return None
    if _PLAIN.fullmatch(text):
        return text
    clean, count = _forbidden().subn("\ufffd", text)
    for match in islice(_forbidden().finditer(text), _SHOWN):
        code = ord(match.group())
        message = f"character U+{code:04X} is not allowed in a YAML file"
        helped = None if 0xD800 <= code < 0xE000 else f"write `\\u{code:04x}` inside double quotes if it is intended"
        problems.error("AX004", message, _character(text, match.start(), file), label="here", help=helped)
    if count > _SHOWN:
        message = f"{count - _SHOWN} more characters are not allowed in a YAML file"
        problems.error("AX004", message, _first(file))
    return clean


@cache
def _forbidden() -> re.Pattern[str]:
    """Characters outside of the set of YAML 1.2, and those that only the parser takes for more than text.

    The latter are NEL, LS and PS, line breaks to it, and an inner byte order mark. The pattern takes milliseconds to
    compile.
    """
    return re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _size(data: bytes | str) -> int:
    """Bytes of UTF-8."""
    return len(data) if isinstance(data, bytes) or len(data) > MAX_BYTES else len(data.encode("utf-8", "surrogatepass"))


def _first(file: str) -> Span:
    return Span(file, Position(1, 1), Position(1, 1))


def _character(text: str, index: int, file: str, length: int = 1) -> Span:
    """The span of the characters at `index`."""
    start = position(text, index)
    return Span(file, start, Position(start.line, start.column + length))


def position(text: str, index: int) -> Position:
    """Where the character at `index` stands."""
    breaks = [match.end() for match in _LINE_BREAK.finditer(text, 0, index)]
    return Position(len(breaks) + 1, index - (breaks[-1] if breaks else 0) + 1)
