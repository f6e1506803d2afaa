"""Parts of the norms of queries and keys."""

from __future__ import annotations

from axon_compose.registry import Role, Summed, rows
from axon_core.specs._heads import HeadNormOptions

__all__ = ["norm_roles", "norm_sums"]


def norm_roles(norm: HeadNormOptions | None, width: int, **heads: int) -> dict[str, Role]:
    """Roles of scales and shifts that belong to heads; what all heads share is whole.

    Args:
        norm: Its options, None without one.
        width: Of a head.
        **heads: Names of norms to how many heads they are of.
    """
    if norm is None or not (norm.per_head or norm.over == "all"):
        return {}
    each = 1 if norm.per_head else width
    return {f"{n}.{learned}": rows(each * count, count) for n, count in heads.items() for learned in norm.shapes(1, 1)}


def norm_sums(norm: HeadNormOptions | None, devices: int, count: int = 2) -> tuple[Summed, ...]:
    """What norms over all heads sum: a mean square, or the mean and variance of each device.

    Args:
        norm: Their options, None without one.
        devices: How many.
        count: How many of them there are.
    """
    if norm is None or norm.over != "all":
        return ()
    return (Summed(2 * devices if norm.type == "layer_norm" else 1, "float32"),) * count
