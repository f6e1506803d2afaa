"""The scan of Mamba-2 as a kernel: in C++ on the CPU. GPUs run the form made of matrix products, which they are for."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import mlx.core as mx

from axon_core.kernels._derivatives import Recurrence, in_place_of
from axon_core.kernels._native import native

__all__ = ["ssd_scan"]


def ssd_scan(
    pure: Recurrence, A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    """Run the scan over any number of tokens, all in float32.

    Args:
        pure: The same, of the arguments that follow.
        A: Decay of each head, not positive, (H,).
        state: State before the first token, (Bt, H, P, N).
        dt: Step sizes, not negative, zero at padding, (Bt, L, H).
        u: Inputs times step sizes, (Bt, L, H, P).
        B: Input projections, (Bt, L, G, N); G divides H.
        C: Output projections, (Bt, L, G, N).

    Returns:
        The output, (Bt, L, H, P), and the state after the last token.
    """
    module = native()
    run = in_place_of(pure, partial(_native, module), partial(_gradient, module)) if module else pure
    return run(A, state, dt, u, B, C)


def _native(
    module: ModuleType, A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    y, last = module.ssd_scan(state, dt * A, u, B, C)
    return y, last


def _gradient(module: ModuleType, A: mx.array, state: mx.array, dt: mx.array, *rest: mx.array) -> list[mx.array]:
    d_state, d_log, *others = module.ssd_scan_vjp(state, dt * A, *rest)
    return [(d_log * dt).sum((0, 1)), d_state, d_log * A, *others]
