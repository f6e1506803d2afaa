"""How wide the terminal is, as `shutil` tells it, which imports what compresses archives along with that."""

from __future__ import annotations

import os
import sys

__all__ = ["columns"]


def columns(otherwise: int) -> int:
    """What the variable `COLUMNS` says, else the width of the terminal; `otherwise` where there is none."""
    try:
        asked = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        asked = 0
    if asked > 0:
        return asked
    try:
        assert sys.__stdout__ is not None
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or otherwise
    except (AssertionError, OSError, ValueError):  # it is closed, or no terminal
        return otherwise
