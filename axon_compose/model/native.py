"""The module with kernels in C++ for the CPU, where the optional distribution `axon-native` is installed."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from axon_compose.machine.native import native

__all__ = ["kernels"]


@cache
def kernels() -> ModuleType | None:
    """It, where it is installed, fits and is not switched off; asked once."""
    found = native()
    if found is None or not found.fits:  # `axon-compose doctor` says why
        return None
    try:
        import axon_native
    except ImportError:
        return None
    return axon_native  # type: ignore[no-any-return, unused-ignore]
