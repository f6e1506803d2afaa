"""The plain linear recurrence: every channel is a decaying sum of its inputs, with a decay for every token.

    h_t = a_t h_{t-1} + x_t

The sequence is cut into chunks, and a chunk into S blocks of T tokens that three short passes treat side by side, as in
`axon_core.scan`: the state that each block makes out of nothing (T steps), the states carried from block to block (S
steps), and the true states (T steps). That is `2 T + S` steps for `S * T` tokens. Decays are taken as logarithms, and
what outlives a block is the exponential of their sum, so that nothing is divided by a decay and no sums are subtracted.

The gradient of x is the same recurrence run backwards, and that of a follows from it and from the states, which are the
output:

    dx_t = dy_t + a_{t+1} dx_{t+1},    da_t = dx_t h_{t-1}

so that training keeps the input and the output and nothing of what is inside.

Measured on two shared x86-64 cores (mlx 0.32 on the CPU), ms:

    channels    tokens    this form    mlx-lm (a step per token)
    1024           512      6.3          35
    2560           512     19            59
    1024          2048     33           163
    2560          2048     65           174

On the CPU a kernel takes over where `axon-native` is installed (`kernels`).
"""

from __future__ import annotations

from functools import partial
from typing import Final, cast

import mlx.core as mx

from axon_core import kernels
from axon_core.elementary import exp

__all__ = ["linear_scan"]

#: Tokens of a block.
_BLOCK: Final = 16
#: Blocks of a chunk, and numbers of one of its temporaries: 2 MiB.
_BLOCKS: Final = (2, 16)
_NUMBERS: Final = 2**19


def linear_scan(
    x: mx.array,
    log_a: mx.array,
    state: mx.array | None = None,
    mask: mx.array | None = None,
    chunk: int | None = None,
) -> tuple[mx.array, mx.array]:
    """Run the recurrence over a sequence.

    Everything is computed in float32, whatever the types of the arguments.

    Args:
        x: Input, (B, L, E).
        log_a: Logarithms of the decays, not positive, (B, L, E).
        state: State before the first token, (B, E); zeros by default.
        mask: False on padding, (B, L). A padded token leaves the state untouched, its output is the state.
        chunk: Tokens that are worked on at a time; by default what fits 2 MiB per temporary, from 32 to 256.

    Returns:
        The states, which are the output, (B, L, E) in the type of `x`, and the last one, (B, E) in float32.

    Raises:
        ValueError: If `chunk` is not positive.
    """
    batch, length, channels = x.shape
    if chunk is None:
        chunk = _BLOCK * min(max(_NUMBERS // (_BLOCK * max(1, batch * channels)), _BLOCKS[0]), _BLOCKS[1])
    if chunk < 1:
        raise ValueError(f"chunk must be positive, not {chunk}")
    dtype, x, log_a = x.dtype, x.astype(mx.float32), log_a.astype(mx.float32)
    if mask is not None:
        # Both of them: values at padding may be anything, and 0 * nan is nan.
        x, log_a = (mx.where(mask[..., None], a, 0.0) for a in (x, log_a))
    state = mx.zeros((batch, channels)) if state is None else state.astype(mx.float32)
    if length == 0:
        return x.astype(dtype), state
    y, state = kernels.linear_scan(partial(_tokens, chunk), state, x, log_a)
    return y.astype(dtype), state


def _tokens(chunk: int, state: mx.array, x: mx.array, log_a: mx.array) -> tuple[mx.array, mx.array]:
    """All tokens: (B, L, E) and (B, E) in and out."""
    if x.shape[1] == 1:
        state = exp(log_a[:, 0]) * state + x[:, 0]
        return state[:, None], state
    y = _scan(x, log_a, state, chunk)
    # A copy, for a view would keep the whole output alive.
    return y, mx.contiguous(y[:, -1])


def _scan(x: mx.array, log_a: mx.array, state: mx.array, chunk: int) -> mx.array:
    """All states, with the gradient of its own."""

    @mx.custom_function
    def scan(x: mx.array, log_a: mx.array, state: mx.array) -> mx.array:
        return _chunks(x, log_a, state, chunk)

    @scan.vjp
    def _vjp(primals: tuple[mx.array, ...], cotangent: mx.array, y: mx.array) -> tuple[mx.array, ...]:
        _, log_a, state = primals
        return _backwards(cotangent, log_a, state, y, chunk)

    return cast("mx.array", scan(x, log_a, state))


def _chunks(x: mx.array, log_a: mx.array, state: mx.array, chunk: int) -> mx.array:
    """All chunks in order."""
    cuts = list(range(chunk, x.shape[1], chunk))
    outputs: list[mx.array] = []
    for part in zip(mx.split(x, cuts, axis=1), mx.split(log_a, cuts, axis=1), strict=True):
        if outputs:
            # Without this MLX evaluates all chunks side by side and keeps every chunk's temporaries alive.
            part = mx.depends(list(part), outputs[-1])
            state = outputs[-1][:, -1]
        x, log_a = part
        outputs.append(_chunk(x, log_a, state))
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=1)


def _backwards(
    dy: mx.array, log_a: mx.array, state: mx.array, y: mx.array, chunk: int
) -> tuple[mx.array, mx.array, mx.array]:
    """Gradients of the input, of the logarithms and of the first state, from the last chunk to the first."""
    cuts = list(range(chunk, y.shape[1], chunk))
    parts = list(zip(*(mx.split(a, cuts, axis=1) for a in (dy, log_a, y)), strict=True))
    before = [state, *(y[:, -1] for _, _, y in parts[:-1])]
    carry = mx.zeros_like(state)
    found: list[tuple[mx.array, mx.array]] = []
    for (dy, log_a, y), h in zip(reversed(parts), reversed(before), strict=True):
        if found:
            dy, log_a, y, h = mx.depends([dy, log_a, y, h], list(found[-1]))
        # The carry is decayed already: the first step of the way back is one without a decay.
        later = mx.concatenate([log_a[:, 1:], mx.zeros_like(log_a[:, :1])], axis=1)
        dx = _chunk(dy[:, ::-1], later[:, ::-1], carry)[:, ::-1]
        kept = exp(log_a) * dx
        found.append((dx, kept * mx.concatenate([h[:, None], y[:, :-1]], axis=1)))
        carry = kept[:, 0]
    dx, d_log_a = (mx.concatenate(list(each), axis=1) for each in zip(*reversed(found), strict=True))
    return dx, d_log_a, carry


def _chunk(x: mx.array, log_a: mx.array, state: mx.array) -> mx.array:
    """One chunk of n tokens in blocks: (B, n, E) and (B, E) in, (B, n, E) out."""
    tokens = x.shape[1]
    # The fewest padded tokens: 17 become two blocks of 9, not two of 16.
    blocks = -(-tokens // _BLOCK)
    steps = -(-tokens // blocks)
    x, log_a = (_to_blocks(a, blocks, steps) for a in (x, log_a))
    decay, drive = (mx.split(a, steps, axis=2) for a in (exp(log_a), x))

    states = [state[:, None, None]]
    if blocks > 1:
        made = drive[0]
        for t in range(1, steps):
            made = decay[t] * made + drive[t]
        through = exp(log_a.sum(axis=2, keepdims=True))
        through, made = (mx.split(a, blocks, axis=1)[:-1] for a in (through, made))
        for kept, new in zip(through, made, strict=True):
            states.append(kept * states[-1] + new)
    h = mx.concatenate(states, axis=1)

    rows = []
    for t in range(steps):
        h = decay[t] * h + drive[t]
        rows.append(h)
    return mx.concatenate(rows, axis=2).flatten(1, 2)[:, :tokens]


def _to_blocks(a: mx.array, blocks: int, steps: int) -> mx.array:
    """(B, n, E) to (B, blocks, steps, E); the missing tokens are zeros, which neither decay nor add."""
    missing = blocks * steps - a.shape[1]
    if missing:
        a = mx.pad(a, [(0, 0), (0, missing), (0, 0)])
    return mx.unflatten(a, 1, (blocks, steps))
