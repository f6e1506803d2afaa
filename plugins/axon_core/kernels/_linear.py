"""The plain linear recurrence as a kernel: in C++ on the CPU. GPUs run the form that works on blocks side by side."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import mlx.core as mx

from axon_core.kernels._derivatives import Recurrence, in_place_of
from axon_core.kernels._native import native

__all__ = ["linear_scan"]


def linear_scan(pure: Recurrence, state: mx.array, x: mx.array, log_a: mx.array) -> tuple[mx.array, mx.array]:
    """Run the recurrence over any number of tokens, all in float32.

    Args:
        pure: The same, of the arguments that follow.
        state: State before the first token, (B, E).
        x: Input, (B, L, E).
        log_a: Logarithms of the decays, not positive, (B, L, E).

    Returns:
        The states, which are the output, (B, L, E), and the one after the last token.
    """
    module = native()
    if module is None:
        return pure(state, x, log_a)
    return in_place_of(pure, module.linear_scan, partial(_gradient, module), of_outputs=True)(state, x, log_a)


def _gradient(
    module: ModuleType,
    state: mx.array,
    x: mx.array,
    log_a: mx.array,
    y: mx.array,
    last: mx.array,
    dy: mx.array,
    dlast: mx.array,
) -> list[mx.array]:
    found: list[mx.array] = module.linear_scan_vjp(state, log_a, y, dy, dlast)
    return found
