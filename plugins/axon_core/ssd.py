"""State space duality: a recurrence with one decay per head, as matrix products (Dao and Gu 2024, "Mamba-2").

For every head, with a state h of P x N

    h_t = exp(dt_t * A) * h_{t-1} + dt_t * x_t B_t^T
    y_t = h_t C_t + D * x_t

The sequence is cut into blocks of Q tokens. Within a block, token i sees token j <= i through the matrix

    (C_i . B_j) * exp(dt_{j+1} A + ... + dt_i A)

and the blocks hand a state on, in float32. All blocks of a segment are worked on at once, and a sequence has as many
segments as keep the matrices small, so that memory grows with the sequence only by inputs and outputs.

The sums of decays are summed directly, never as differences of running sums, and are masked before they are
exponentiated: every factor is the exponential of a number that is at most zero, so no step can overflow or cancel.

Measured on two x86-64 cores (mlx 0.32 on the CPU), ms for 2048 tokens, by tokens of a block:

    H, P, G, N       16    32    64   128   mlx-lm (blocks of 256)
    12, 64, 1, 64    174   181   194   271    620
    24, 64, 1, 128   478   484   545   713   2215
    16, 64, 8, 128   351   368   436   610   1487

With a fast BLAS in place of the wheel's, blocks of 32 are the fastest of these, at 34, 85 and 78 ms.
On the CPU a kernel takes over where `axon-native` is installed (`kernels`).
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx

from axon_core import kernels
from axon_core.elementary import exp
from axon_core.recompute import recomputed
from axon_core.specs._segments import SSD_BLOCK, ssd_blocks, ssd_cut

__all__ = ["decayed_scan", "ssd_scan"]


def ssd_scan(
    x: mx.array,
    dt: mx.array,
    A: mx.array,
    B: mx.array,
    C: mx.array,
    D: mx.array | None = None,
    state: mx.array | None = None,
    mask: mx.array | None = None,
    block: int = SSD_BLOCK,
) -> tuple[mx.array, mx.array]:
    """Run the scan of Mamba-2 over a sequence.

    Everything is computed in float32, whatever the types of the arguments.

    Args:
        x: Input, (Bt, L, H, P) for Bt sequences of L tokens in H heads of P channels.
        dt: Step sizes, not negative, (Bt, L, H).
        A: Decay of each head, not positive, (H,).
        B: Input projections, (Bt, L, G, N): one for each of G groups of H / G heads.
        C: Output projections, (Bt, L, G, N).
        D: Skip of each head, (H,); none by default.
        state: State before the first token, (Bt, H, P, N); zeros by default.
        mask: False on padding, (Bt, L). A padded token leaves the state untouched, its output means nothing.
        block: Tokens whose matrix is formed at once.

    Returns:
        The output (Bt, L, H, P) in the type of `x`, and the state after the last token, (Bt, H, P, N) in float32.

    Raises:
        ValueError: If `block` is not positive.
    """
    if block < 1:
        raise ValueError(f"block must be positive, not {block}")
    batch, length, heads, width = x.shape
    if state is None:
        state = mx.zeros((batch, heads, width, B.shape[-1]), dtype=mx.float32)
    state = state.astype(mx.float32)
    if length == 0:
        return x, state
    inputs = _prepare(x, dt, B, C, mask)
    y, state = kernels.ssd_scan(partial(_tokens, block), A.astype(mx.float32), state, *inputs)
    if D is not None:
        y = y + D.astype(mx.float32)[:, None] * x
    return y.astype(x.dtype), state


def decayed_scan(
    u: mx.array, log_decay: mx.array, B: mx.array, C: mx.array, state: mx.array, block: int = SSD_BLOCK
) -> tuple[mx.array, mx.array]:
    """The same where each token has decays of its own: `h_t = exp(log_decay_t) h_{t-1} + u_t B_t^T`, `y_t = h_t C_t`.

    Args:
        u: (Bt, L, H, P), in float32 like the others.
        log_decay: Not positive, (Bt, L, H).
        B: (Bt, L, G, N), one for each of G groups of H / G heads.
        C: (Bt, L, G, N).
        state: Before the first token, (Bt, H, P, N).
        block: Tokens whose matrix is formed at once.

    Returns:
        The output (Bt, L, H, P), and the state after the last token.
    """
    return kernels.ssd_scan(partial(_tokens, block), -mx.ones((u.shape[2],)), state, -log_decay, u, B, C)


def _prepare(
    x: mx.array, dt: mx.array, B: mx.array, C: mx.array, mask: mx.array | None
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """Steps, inputs times steps (Bt, L, H, P), B and C in float32; padding becomes a step of size zero."""
    dt, B, C = (a.astype(mx.float32) for a in (dt, B, C))
    u = dt[..., None] * x
    if mask is not None:
        # B as well: values at padding may be anything, and 0 * nan is nan.
        dt, u, B = (mx.where(mask.reshape(*mask.shape, *[1] * (a.ndim - 2)), a, 0.0) for a in (dt, u, B))
    return dt, u, B, C


def _tokens(
    block: int, A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    """All tokens: (Bt, L, H, P) and (Bt, H, P, N) in and out, heads by their groups in between."""
    groups = B.shape[2]
    by_group = mx.unflatten(state, 1, (groups, -1))
    A = A.reshape(groups, -1)
    inputs = mx.unflatten(dt, 2, (groups, -1)), mx.unflatten(u, 2, (groups, -1)), B, C
    y, by_group = _step(A, by_group, *inputs) if dt.shape[1] == 1 else _segments(A, by_group, inputs, block)
    return y.reshape(u.shape), by_group.reshape(state.shape)


def _step(
    A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    """One token; the state is (Bt, G, R, P, N)."""
    decay = exp(dt * A)[:, 0, ..., None, None]
    state = decay * state + u[:, 0, ..., None] * B[:, 0, :, None, None]
    return state @ C[:, 0, :, None, :, None], state


def _segments(A: mx.array, state: mx.array, inputs: tuple[mx.array, ...], block: int) -> tuple[mx.array, mx.array]:
    """All segments in order."""
    batch, length = inputs[0].shape[:2]
    blocks, steps = ssd_cut(length, block)
    inputs = tuple(_to_blocks(a, blocks, steps) for a in inputs)
    width, states = state.shape[-2:]
    fitting = ssd_blocks(batch * A.size, steps, width, states)
    # Split, not sliced: the gradient of a slice is an array as large as the whole, once per slice.
    cuts = list(range(fitting, blocks, fitting))
    outputs: list[mx.array] = []
    for part in zip(*(mx.split(a, cuts, axis=1) for a in inputs), strict=True):
        y, state = _segment(A, state, *part)
        outputs.append(y)
    y = outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=1)
    return y.flatten(1, 2)[:, :length], state


def _to_blocks(a: mx.array, blocks: int, steps: int) -> mx.array:
    """(Bt, L, ...) to (Bt, blocks, steps, ...); the missing tokens are zeros, that is steps of size zero."""
    missing = blocks * steps - a.shape[1]
    if missing:
        a = mx.pad(a, [(0, 0), (0, missing), *[(0, 0)] * (a.ndim - 2)])
    return mx.unflatten(a, 1, (blocks, steps))


@recomputed
def _segment(
    A: mx.array, state: mx.array, dt: mx.array, u: mx.array, B: mx.array, C: mx.array
) -> tuple[mx.array, mx.array]:
    """One segment of c blocks: dt (Bt, c, Q, G, R), u (Bt, c, Q, G, R, P), B and C (Bt, c, Q, G, N)."""
    logs = (dt * A).transpose(0, 1, 3, 4, 2)
    B, C = B.swapaxes(2, 3), C.swapaxes(2, 3)
    decay = exp(_segment_sums(logs))
    seen = (C @ B.swapaxes(-1, -2))[:, :, :, None] * decay
    y = (seen @ u.transpose(0, 1, 3, 4, 2, 5)).transpose(0, 1, 4, 2, 3, 5)

    # What every block makes out of nothing, how much of the state before it gets through, and so those states.
    until_end = decay[..., -1, :].transpose(0, 1, 4, 2, 3)[..., None]
    since_start = exp(mx.cumsum(logs, axis=-1))
    heads, width = state.shape[2:4]
    made = (u * until_end).swapaxes(2, 3).flatten(-2).swapaxes(-1, -2) @ B
    before, state = _carry(state, since_start[..., -1:, None], mx.unflatten(made, 3, (heads, width)))

    read = mx.unflatten(C @ before.flatten(3, 4).swapaxes(-1, -2), -1, (heads, width)).swapaxes(2, 3)
    return y + read * since_start.transpose(0, 1, 4, 2, 3)[..., None], state


def _carry(state: mx.array, kept: mx.array, made: mx.array) -> tuple[mx.array, mx.array]:
    """The states before each block (Bt, c, G, R, P, N), out of the one before the first; and the one after the last."""
    blocks = made.shape[1]
    states = [state[:, None]]
    for through, new in zip(mx.split(kept, blocks, axis=1), mx.split(made, blocks, axis=1), strict=True):
        states.append(through * states[-1] + new)
    return mx.concatenate(states[:-1], axis=1), states[-1][:, 0]


def _segment_sums(a: mx.array) -> mx.array:
    """(..., Q) to (..., Q, Q): at i, j the sum of a over j + 1 ... i; minus infinity where j > i."""
    steps = a.shape[-1]
    index = mx.arange(steps)
    later = index[:, None] > index
    sums = mx.cumsum(mx.where(later, a[..., None], 0.0), axis=-2)
    return mx.where(index[:, None] >= index, sums, -mx.inf)
