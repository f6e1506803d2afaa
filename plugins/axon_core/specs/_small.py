"""Small sizes of components, for `check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["limited", "small_heads", "small_rope", "thinned"]


def limited(options: Any, limits: Mapping[str, int]) -> dict[str, int]:
    """Options that are larger than wanted, at their limits; those that are None, or a word such as `auto`, stay.

    Args:
        options: The model of a component's options.
        limits: Name to the largest value; names that it does not have are left out.
    """
    values = {name: getattr(options, name, None) for name in limits}
    return {n: limits[n] for n, value in values.items() if isinstance(value, int | float) and value > limits[n]}


def small_heads(heads: int, kv_heads: int | None) -> dict[str, int]:
    """`num_heads`, and `num_kv_heads` unless that is None: up to four, which share keys as the original ones do."""
    small = {"num_heads": 4 if heads >= 4 else 2 if heads >= 2 else 1}
    if kv_heads is not None:
        grouped = kv_heads < heads
        small["num_kv_heads"] = (1 if kv_heads == 1 else 2) if grouped else small["num_heads"]
    return small


def small_rope(written: Mapping[str, Any], head_dim: int | None, width: int) -> dict[str, Any]:
    """The same rotation of a head of `width` instead of `head_dim`: of as large a part of it."""
    small = {name: value for name, value in written.items() if name != "fraction"}
    fraction = written.get("fraction")
    if small.get("dims") is not None:
        fraction = small["dims"] / head_dim if head_dim else 0.5
    if fraction is None:
        return thinned(small, width)
    dims = max(2, 2 * round(width / 2 * fraction))
    return thinned(small | {"dims": dims}, dims)


def thinned(rope: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """The same with as many factors of `longrope` as `dims` rotated dimensions need, evenly chosen."""
    found, pairs = dict(rope), dims // 2
    if found.get("scaling"):
        found["scaling"] = dict(found["scaling"])
        for name in ("short_factor", "long_factor"):
            if factors := found["scaling"].get(name):
                found["scaling"][name] = [factors[i * len(factors) // pairs] for i in range(pairs)]
    return found
