"""Several processes on the loopback, started by `mlx.launch` as people start them, that end with the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tests.children import child

__all__ = ["launched"]

ROOT = Path(__file__).parent.parent
_LAUNCH = "import sys; from mlx._distributed_utils.launch import main; sys.exit(main())"
#: Seconds after which processes that wait for each other have failed: they take a few.
PATIENCE = 240


def launched(command: Iterable[str], processes: int = 2, cwd: Path | None = None, **variables: str) -> tuple[str, str]:
    """Run a command in several processes of MLX's ring, each with one thread for products.

    Args:
        command: Arguments of this Python, such as the path of a script.
        processes: How many.
        cwd: Where they run.
        variables: What they have in their environment beside that of the test.

    Returns:
        What all of them wrote to standard output and to standard error.
    """
    start = [sys.executable, "-c", _LAUNCH, "-n", str(processes), "-p", str(_free_ports(processes))]
    paths = f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths} | variables
    full = [*start, "--python", sys.executable, "--", *command]
    with child(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return out, err


def _free_ports(number: int) -> int:
    """The first of some ports in a row that nobody has."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for offset in range(1, number):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except (OSError, OverflowError):
                continue
        return port
