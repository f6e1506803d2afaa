"""Characters as they look in a terminal: tabs, wide characters, and those that must not reach it."""

from __future__ import annotations

import unicodedata

__all__ = ["escape", "shorten", "show", "width"]

_TAB = "    "


def show(character: str) -> str:
    """One character as it may be printed: tabs as four spaces, control and invisible characters escaped."""
    if character == "\t":
        return _TAB
    if character.isascii():
        return character if character.isprintable() else f"\\x{ord(character):02x}"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        code = ord(character)
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


def escape(text: str) -> str:
    """Return `text` on one line, with nothing in it that could drive a terminal."""
    return text if text.isascii() and text.isprintable() else "".join(map(show, text))


def shorten(text: str, limit: int) -> str:
    """Return `text`, its end replaced by `…` if it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def width(shown: str) -> int:
    """Columns that a printed text takes."""
    if shown.isascii():
        return len(shown)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)
