"""Colour and width of a terminal; none anywhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, TextIO

from axon_compose.machine.terminal import columns
from axon_compose.record import record

__all__ = ["PLAIN", "Style"]

_RESET: Final = "\x1b[0m"
_CODES: Final = {
    "error": "1;31",
    "warning": "1;33",
    "strong": "1",
    "frame": "1;34",
    "note": "1;36",
    "good": "32",
    "dim": "2",
}


@record
class Style:
    """Paints words by what they mean.

    Attributes:
        colour: Whether ANSI escapes are written.
        columns: Of the terminal that tables have to fit, None where there is none.
    """

    colour: bool = False
    columns: int | None = None

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Style:
        """The style that suits `stream`.

        `NO_COLOR` (any value but an empty one) turns colour off, else `FORCE_COLOR` on; without them a terminal has
        colour unless `TERM` is `dumb`.
        """
        try:
            terminal = stream.isatty()
        except (AttributeError, ValueError):  # a closed stream, or something that only writes
            terminal = False
        width = columns(80) if terminal else None
        if environ.get("NO_COLOR"):
            return cls(False, width)
        if environ.get("FORCE_COLOR", "0") not in ("", "0"):
            return cls(True, width)
        return cls(terminal and environ.get("TERM") != "dumb", width)

    def bold(self, text: str) -> str:
        """Return `text` emphasised."""
        return self.paint(text, "strong")

    def dim(self, text: str) -> str:
        """Return `text` in the background."""
        return self.paint(text, "dim")

    def paint(self, text: str, role: str) -> str:
        """Return `text` in the colour of `role`: error, warning, strong, frame, note, good or dim."""
        return f"\x1b[{_CODES[role]}m{text}{_RESET}" if self.colour and text else text

    def tint(self, text: str, colour: int) -> str:
        """Return `text` in one of the 256 colours of a terminal."""
        return f"\x1b[38;5;{colour}m{text}{_RESET}" if self.colour and text else text


#: No colour at all.
PLAIN: Final = Style()
