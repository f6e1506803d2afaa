"""Whether this process is one of several that a launcher has started, such as `mlx.launch` or `mpirun`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["launched_rank"]

#: What launchers give each process: its number. The first is that of `mlx.launch`, but for MPI.
_RANKS: Final = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")


def launched_rank() -> int | None:
    """The number of this process among those that were launched together, None if nothing was.

    It is known without MLX, and before the others are there. `mlx.launch -n 1` gives its one process an empty list of
    hosts, which MLX does not take: such a process is alone.
    """
    hosts = os.environ.get("MLX_HOSTFILE")
    with suppress(OSError):
        if hosts and not Path(hosts).read_bytes().strip():
            return None
    for name in _RANKS:
        if (number := os.environ.get(name, "")).isdecimal():
            return int(number)
    return None
