"""The number of tasks that MLX believes to be on their way, kept right from test to test.

MLX 0.32.4 counts a task before it hands it over. Where the handing over raises, as it does for an error of an earlier
task, the task is never taken off again; with more than ten of those an evaluation waits for ever. One process of a user
has one such error, a worker of the suite hundreds of tests that provoke some.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

__all__ = ["settle"]

#: Where the number is the first thing that the scheduler holds.
_KNOWN = "0.32.4"


@cache
def _count() -> Any:
    """The number, as what can be read and written; None where MLX keeps it elsewhere."""
    if mx.__version__.split(".dev")[0] != _KNOWN:
        return None
    library = next(Path(mx.__file__).parent.glob("lib/libmlx.*"), None)
    scheduler = library and getattr(ctypes.CDLL(str(library)), "_ZN3mlx4core9scheduler9schedulerEv", None)
    if not scheduler:
        return None
    scheduler.restype = ctypes.c_void_p
    return ctypes.cast(scheduler(), ctypes.POINTER(ctypes.c_int)).contents


def settle() -> int:
    """Take off the tasks that were never handed over; how many those were."""
    count = _count()
    if count is None or count.value <= 0:
        return 0
    for _ in range(2):  # an error of an earlier task is raised once
        try:
            mx.synchronize()
            break
        except RuntimeError:
            continue
    for _ in range(20):  # what other threads compute
        if count.value <= 0:
            return 0
        time.sleep(0.005)
    lost = int(count.value)
    count.value = 0
    return lost
