"""Components of which every device has all, with the reason."""

from __future__ import annotations

from typing import Any, Final

from axon_compose.registry import Dims

__all__ = ["BETWEEN", "laurel_split", "stream_split"]

BETWEEN: Final = "it works on the residual stream, which every device has"


def stream_split(options: Any, dims: Dims, devices: int) -> str:
    """No part: what is between branches, such as a norm, reads all numbers of a vector that all devices have."""
    return BETWEEN


def laurel_split(options: Any, dims: Dims, devices: int) -> str:
    """No part: its norm would need the sum of all parts, as many numbers as a larger layer sends, for thin matrices."""
    return f"its matrices of `rank` {options.rank} are small, and devices would sum all of what its norm reads"
