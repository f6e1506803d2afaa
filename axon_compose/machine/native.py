"""Whether kernels in C++ run on the CPU: those of the optional distribution `axon-native`."""

from __future__ import annotations

import os
from typing import NamedTuple

from axon_compose.machine.distributions import installed

__all__ = ["NEEDED", "SWITCH", "Native", "native"]

#: The environment variable that leaves it alone where it is 0.
SWITCH = "AXON_NATIVE"
#: The version whose kernels are asked for.
NEEDED = "0.2.0"


class Native(NamedTuple):
    """What is installed.

    Attributes:
        version: Of axon-native.
        fits: Whether it is the version that is needed, built for the MLX that there is; otherwise it is not used.
    """

    version: str
    fits: bool


def native() -> Native | None:
    """What is installed and not switched off."""
    if os.environ.get(SWITCH) == "0":
        return None
    found, mlx = (next(installed(name), None) for name in ("axon-native", "mlx"))
    if found is None or mlx is None:
        return None
    version, requirement = found.field("Version"), f"mlx=={mlx.field('Version').partition('+')[0]}"
    return Native(version, version == NEEDED and requirement in found.fields("Requires-Dist"))
