"""Recurrences whose inner states are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

__all__ = ["recomputed"]

Segment = Callable[..., tuple[mx.array, mx.array]]


def recomputed(segment: Segment) -> Segment:
    """A part of a recurrence, computed again in the backward pass, so that training keeps the inner states of one part.

    Args:
        segment: `(constants, state, *inputs) -> (outputs, state)`, arrays all.

    Returns:
        The same function with another gradient of the same value.
    """
    wrapped = mx.custom_function(segment)

    @wrapped.vjp  # type: ignore[untyped-decorator, unused-ignore]
    def _vjp(primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], _: Any) -> list[mx.array]:
        # mx.compile would take the second computation for the first one, and fails on what it merges (mlx 0.32.4).
        primals = mx.depends(list(primals), list(cotangents))
        d_constants, d_state, *d_inputs = mx.vjp(segment, list(primals), list(cotangents))[1]
        # All of this part's gradients before those of the earlier part may start: lazily evaluated, as by
        # mx.checkpoint, the sums over tokens would come last, and what they add up would stay alive for every part.
        d_state = mx.depends([d_state], [d_constants, *d_inputs])[0]
        return [d_constants, d_state, *d_inputs]

    return cast("Segment", wrapped)
