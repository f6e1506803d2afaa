"""Terminals and files that are not in Unicode: what they have no place for is written plainly instead of failing."""

from __future__ import annotations

import codecs
import json
from io import TextIOWrapper
from typing import Final, TextIO

__all__ = ["write_plainly"]

#: Characters of our own by what stands for them, in one column too.
_LOOKALIKES: Final = {
    ord(character): plain
    for plain, characters in {
        "-": "─–—", "|": "│∥", "+": "╭╮╰╯┌└┤", ">": "→≥", "<": "←≤", "v": "↓", "x": "×", ",": "·", "~": "…",
        "#": "█▉▊▋▌", ":": "▍▎▏", "/": "◢", "]": "◨", "=": "■", "%": "▣",
    }.items()
    for character in characters
}  # fmt: skip


def write_plainly(stream: TextIO, *, as_json: bool) -> None:
    """Let a stream take any text; streams of Unicode are left alone.

    Args:
        stream: Standard output, or that of errors.
        as_json: Whether JSON is written, whose own escapes lose nothing.
    """
    if isinstance(stream, TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
        stream.reconfigure(errors="axon-compose.json" if as_json else "axon-compose.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LOOKALIKES)
    return "".join(character if character.isascii() else "?" for character in text), error.end


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("axon-compose.plain", _plain)
codecs.register_error("axon-compose.json", _escaped)
