"""Where components take the forms that are made for the CPU, and the way to do without them.

MLX has no fused kernels for the CPU, evaluates exponentials one by one, and its wheel for Linux multiplies slowly. What
is done about it (`elementary`, `linear`, `scores`, `grouped`) gives the same numbers to a few roundings, and each has
the form that runs everywhere else beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import mlx.core as mx

__all__ = ["fast", "plain_forms"]

_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


def fast() -> bool:
    """Whether forms for the CPU are wanted: it is the default device, and nobody asked for the plain ones."""
    return mx.default_device() == mx.cpu and not _PLAIN.get()


@contextmanager
def plain_forms() -> Iterator[None]:
    """Use the forms of other devices on the CPU too, in this thread: to compare, or to trace what a GPU would run."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)
