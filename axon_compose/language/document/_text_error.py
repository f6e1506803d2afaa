"""The error of the small languages inside a description: what is wrong, and which characters are to blame."""

from __future__ import annotations

__all__ = ["TextError", "character", "quote"]


class TextError(Exception):
    """A text that cannot be read or computed.

    Attributes:
        message: What is wrong: one line, lower case, no full stop.
        start: Offset of the first character to blame.
        end: Offset after the last one; greater than `start` unless the text is empty.
        help: What to do, or None.
    """

    def __init__(self, message: str, start: int, end: int, help: str | None = None) -> None:  # noqa: A002
        super().__init__(message, start, end, help)
        self.message, self.start, self.end, self.help = message, start, end, help

    def __str__(self) -> str:
        return self.message


def quote(text: str, limit: int = 40) -> str:
    """The text in backticks for a message: on one line, printable, not longer than `limit` characters."""
    shown = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text[: limit + 1])
    return f"`{shown}`" if len(shown) <= limit else f"`{shown[: limit - 1]}…`"


def character(char: str) -> str:
    """One character for a message, by its number if it cannot be seen."""
    return f"`{char}`" if char.isprintable() and char != "`" else f"U+{ord(char):04X}"
