"""The selective scan as a kernel: one thread for each channel of each sequence, from the first token to the last.

    h_n = exp(dt * A_n) * h_n + B_n * u        y = sum_n C_n * h_n

A thread keeps its N states and its row of A in registers. Neighbouring threads have neighbouring channels, so that what
they read of dt and u and write of y lies side by side; B and C are the same for all of a sequence. Nothing is read
twice from memory and no state is written but the last, as in the kernel of Gu and Dao 2023, "Mamba", section 3.3,
without its scan across tokens.

Groups are as small as a SIMD group, for a model of 1536 channels has no more threads than that in a sequence, and they
should spread over the device.
"""

from __future__ import annotations

from typing import Final

import mlx.core as mx

from axon_core.kernels._derivatives import Recurrence, in_place_of
from axon_core.kernels._device import LANES, Kernel, language
from axon_core.kernels._native import native

__all__ = ["selective_scan"]

#: States of a channel that fit into registers, beside as many numbers of A.
_STATES: Final = 64

_KERNEL: Final = Kernel(
    name="selective_scan",
    inputs=("A", "state", "dt", "u", "B", "C"),
    outputs=("y", "last"),
    group=LANES,
    body="""
    const size_t sequences = u_shape[0], tokens = u_shape[1], channels = u_shape[2];
    if (at >= sequences * channels) { return; }
    const size_t sequence = at / channels, channel = at % channels;

    const size_t first = sequence * tokens * channels + channel;
    dt += first; u += first; y += first;
    B += sequence * tokens * N; C += sequence * tokens * N;
    A += channel; state += sequence * N * channels + channel; last += sequence * N * channels + channel;

    float a[N], h[N];
    #pragma unroll
    for (int n = 0; n < N; ++n) { a[n] = A[n * channels]; h[n] = state[n * channels]; }

    for (size_t t = 0; t < tokens; ++t) {
        const float size = *dt, drive = *u;
        float sum = 0.0f;
        #pragma unroll
        for (int n = 0; n < N; ++n) {
            h[n] = exponential(size * a[n]) * h[n] + B[n] * drive;
            sum += C[n] * h[n];
        }
        *y = sum;
        dt += channels; u += channels; y += channels;
        B += N; C += N;
    }

    #pragma unroll
    for (int n = 0; n < N; ++n) { last[n * channels] = h[n]; }
""",
)


def selective_scan(
    pure: Recurrence, A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    """Run the scan over any number of tokens, all in float32.

    Args:
        pure: The same, of the arguments that follow.
        A: Diagonal of the state matrix, not positive, (N, E).
        state: State before the first token, (Bt, N, E).
        dt: Step sizes, not negative, zero at padding, (Bt, L, E).
        u: Inputs times step sizes, (Bt, L, E).
        B: Input projections, (Bt, L, N).
        C: Output projections, (Bt, L, N).

    Returns:
        The output, (Bt, L, E), and the state after the last token.
    """
    module = native()
    fits = language() is not None and u.size > 0 and 0 < A.shape[0] <= _STATES
    if module:
        run = in_place_of(pure, module.selective_scan, module.selective_scan_vjp)
    else:
        run = in_place_of(pure, _launch if fits else None)
    return run(A, state, dt, u, B, C)


def _launch(
    A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    threads = u.shape[0] * u.shape[2]
    y, last = _KERNEL(A, state, dt, u, B, C, shapes=[u.shape, state.shape], threads=threads, N=A.shape[0])
    return y, last
