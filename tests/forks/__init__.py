"""Commands of tests as processes of their own that need not import everything again.

Half a second of `axon-compose` and one and a half of `mlx_lm` are imports, and tests run hundreds of both. A server
(`server.py`) imports once; each command is a fork of it that gets the arguments, the folder, the variables and the
streams of its caller, and has the exit code and the output of any Python program. What a test says of a fresh
interpreter (imports, closed streams, memory, signals) it says of `sys.executable` instead.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from tests.children import child
from tests.forks.server import read_once

__all__ = ["OFFLINE", "POSSIBLE", "programs", "python", "read_once"]

HERE: Final = Path(__file__).parent
#: Metal and other systems' frameworks do not survive a fork; there a command is a fresh interpreter.
POSSIBLE: Final = sys.platform == "linux" and hasattr(os, "pidfd_open")
#: The server imports without network; a caller that does not say so as well gets a fresh interpreter.
OFFLINE: Final = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")


def python() -> list[str]:
    """How the command line of a Python program begins: `[*python(), "-m", "mlx_lm", …]`, also with `-c` or a file."""
    if not POSSIBLE:
        return [sys.executable]
    return [sys.executable, "-I", "-S", str(HERE / "client.py"), str(_folder() / "socket")]


def programs() -> Path:
    """A folder with `python` and the console scripts of axon-compose and mlx-lm; first on PATH, they are forks."""
    return _programs() if POSSIBLE else Path(sys.executable).parent


@lru_cache
def _folder() -> Path:
    """Where the server listens; it ends with this process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    command = [sys.executable, str(HERE / "server.py"), str(folder / "socket")]
    environment: Mapping[str, str] = {**os.environ, **OFFLINE}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}  # none can seek
    server = stack.enter_context(child(command, env=environment, **streams))
    said: list[str] = []
    while (line := server.stdout.readline()) != "ready\n":
        said.append(line)
        assert line, "".join(said)
    return folder


@lru_cache
def _programs() -> Path:
    folder = _folder() / "bin"
    folder.mkdir()
    starts = {"python": python()}
    for pattern in ("axon-compose", "mlx_lm*"):
        for program in Path(sys.executable).parent.glob(pattern):
            starts[program.name] = [*python(), str(program)]
    for name, start in starts.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
        path.chmod(0o755)
    return folder
