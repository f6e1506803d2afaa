"""What several splits ask for before they give equal parts, and what they write down."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import written

__all__ = ["part", "uneven", "unshared"]


def uneven(devices: int, **sizes: int) -> str | None:
    """Why devices cannot get as much of each of these options, or None."""
    found = (f"`{name}` ({size})" for name, size in sizes.items() if size % devices)
    return next((f"{what} is not a multiple of {devices} devices" for what in found), None)


def unshared(devices: int, **sizes: int) -> str | None:
    """The same where neighbours may share one: why they neither get as many nor share evenly."""
    found = (f"`{name}` ({size})" for name, size in sizes.items() if size % devices and devices % size)
    return next((f"{what} is neither a multiple nor a divisor of {devices} devices" for what in found), None)


def part(options: Any, *without: str, **changed: Any) -> dict[str, Any]:
    """Options of a part as a file writes them: the whole component's, with some of them changed or left out."""
    return {name: value for name, value in written(options).items() if name not in without} | changed
