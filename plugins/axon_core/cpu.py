"""When components take their CPU fast paths, and the switch to reference implementations alone.

MLX has no fused kernels for the CPU, evaluates exponentials one by one, and its wheel for Linux multiplies slowly. What
is done about it (`elementary`, `linear`, `scores`, `grouped`) gives the same numbers up to rounding, and each has the
reference implementation that runs everywhere else beside it. So have the kernels of recurrences (`kernels`), which obey
the same switch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import mlx.core as mx

__all__ = ["fast", "reference_implementations", "reference_only"]

_REFERENCE: ContextVar[bool] = ContextVar("reference", default=False)


def fast() -> bool:
    """Whether to take CPU fast paths: the CPU is the default device, and nobody asked for the reference."""
    return mx.default_device().type is mx.cpu and not _REFERENCE.get()


def reference_only() -> bool:
    """Whether only reference implementations may run."""
    return _REFERENCE.get()


@contextmanager
def reference_implementations() -> Iterator[None]:
    """Use the reference implementations, in this thread: to compare with, or to trace MLX operations alone."""
    token = _REFERENCE.set(True)
    try:
        yield
    finally:
        _REFERENCE.reset(token)
