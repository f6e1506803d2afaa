"""Kernels in C++ on the CPU, where the distribution `axon-native` is installed (`plugins/axon-native`)."""

from __future__ import annotations

from types import ModuleType
from typing import Final

import mlx.core as mx

from axon_compose.model.native import kernels
from axon_core.cpu import fast

__all__ = ["TYPES", "installed", "native"]

#: Types of numbers that steps of a few tokens may have there.
TYPES: Final = (mx.float32, mx.bfloat16, mx.float16)


def native() -> ModuleType | None:
    """The module with the kernels; None on a GPU, without it, and where reference implementations are asked for.

    The environment variable `AXON_NATIVE=0` leaves it alone.
    """
    module = installed()
    return module if module is not None and fast() else None


def installed() -> ModuleType | None:
    """The module with the kernels, wherever it is, if it is there and may be used."""
    return kernels()
