"""Whether kernels in C++ run on the CPU: those of the optional distribution `axon-native`."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import NamedTuple

__all__ = ["SWITCH", "Native", "native"]

#: The environment variable that leaves it alone where it is 0.
SWITCH = "AXON_NATIVE"


class Native(NamedTuple):
    """What is installed.

    Attributes:
        version: Of axon-native.
        fits: Whether it was built for the MLX that there is; otherwise it is not used.
    """

    version: str
    fits: bool


def native() -> Native | None:
    """What is installed and not switched off."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        found, mlx = distribution("axon-native"), version("mlx").partition("+")[0]
    except PackageNotFoundError:
        return None
    return Native(found.version, f"mlx=={mlx}" in (found.requires or ()))
