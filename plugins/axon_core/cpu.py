"""Where components take the forms that are made for the CPU, and the way to do without any form for one device.

MLX has no fused kernels for the CPU, evaluates exponentials one by one, and its wheel for Linux multiplies slowly. What
is done about it (`elementary`, `linear`, `scores`, `grouped`) gives the same numbers to a few roundings, and each has
the form that runs everywhere else beside it. So have kernels of recurrences (`kernels`), which hear the same switch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import mlx.core as mx

__all__ = ["fast", "plain", "plain_forms"]

_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


def fast() -> bool:
    """Whether forms for the CPU are wanted: it is the default device, and nobody asked for the plain ones."""
    return mx.default_device() == mx.cpu and not plain()


def plain() -> bool:
    """Whether somebody asked for the forms that run on every device."""
    return _PLAIN.get()


@contextmanager
def plain_forms() -> Iterator[None]:
    """Use the forms that run on every device, in this thread: to compare, or to trace operations of MLX alone."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)
