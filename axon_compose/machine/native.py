"""Whether kernels in C++ run on the CPU: those of the optional distribution `axon-native`."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

__all__ = ["SWITCH", "native_version"]

#: The environment variable that leaves it alone where it is 0.
SWITCH = "AXON_NATIVE"


def native_version() -> str | None:
    """The version that is installed and not switched off; says nothing about whether it fits the MLX that there is."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        return version("axon-native")
    except PackageNotFoundError:
        return None
