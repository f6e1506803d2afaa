"""Small sizes of components, for `check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["limited"]


def limited(options: Any, limits: Mapping[str, int]) -> dict[str, int]:
    """Options that are larger than wanted, at their limits; those that are None, or a word such as `auto`, stay.

    Args:
        options: The model of a component's options.
        limits: Name to the largest value; names that it does not have are left out.
    """
    values = {name: getattr(options, name, None) for name in limits}
    return {n: limits[n] for n, value in values.items() if isinstance(value, int | float) and value > limits[n]}
