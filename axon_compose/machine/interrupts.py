"""What Ctrl-C does to a command."""

from __future__ import annotations

import os
from types import FrameType
from typing import Final

__all__ = ["INTERRUPTED", "interrupt"]

#: The exit code, that of shells for a program which SIGINT has ended.
INTERRUPTED: Final = 130


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT: raise KeyboardInterrupt, but end the process at once while a module is being imported.

    Nothing is under way then that must be tidied up, and an exception could get lost: extension modules, pydantic's
    among them, print it as ignored and go on, or turn it into an ImportError.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
