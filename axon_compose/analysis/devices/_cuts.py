"""Layers to stages of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["balanced"]


def balanced(costs: Sequence[float], stages: int) -> tuple[range, ...]:
    cuts, start = [], 0
    for stage in range(stages):
        end = round(len(costs) * (stage + 1) / stages)
        cuts.append(range(start, end))
        start = end
    return tuple(cuts)
