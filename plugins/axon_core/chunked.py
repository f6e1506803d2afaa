"""What delta rules share that run over chunks of tokens: the cut, the system that is solved in each, and the states."""

from __future__ import annotations

from typing import cast

import mlx.core as mx

__all__ = ["cut", "through_chunks", "unit_lower_inverse"]


def cut(a: mx.array, chunk: int) -> mx.array:
    """(..., L, W) to (..., chunks, chunk, W); the missing tokens are zeros."""
    missing = -a.shape[-2] % chunk
    if missing:
        a = mx.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, missing), (0, 0)])
    return a.reshape(*a.shape[:-2], -1, chunk, a.shape[-1])


def through_chunks(
    state: mx.array,
    written: mx.array,
    recalled: mx.array,
    keys: mx.array,
    through: mx.array,
    queries: mx.array,
    scores: mx.array,
) -> tuple[mx.array, mx.array]:
    """Hand the state through chunks of which all is known that does not depend on it.

    Args:
        state: Before the first chunk, transposed, (..., 1, Dk, Dv).
        written: What the tokens of each chunk would write if it started from nothing, (..., chunks, C, Dv).
        recalled: What they take off for each number of the state, (..., chunks, C, Dk).
        keys: Where they write, decayed up to the end of the chunk, (..., chunks, Dk, C).
        through: How much of the state outlives the chunk, (..., chunks, Dk or 1, 1).
        queries: Decayed since the start of the chunk, (..., chunks, C, Dk).
        scores: What each token reads of what each has written, (..., chunks, C, C).

    Returns:
        The outputs (..., chunks, C, Dv), and the state after the last chunk.
    """
    per_chunk = (mx.split(a, written.shape[-3], axis=-3) for a in (written, recalled, keys, through, queries, scores))
    outputs = []
    for u, w, k, g, q, qk in zip(*per_chunk, strict=True):
        u = u - w @ state
        outputs.append(q @ state + qk @ u)
        state = g * state + k @ u
    return mx.concatenate(outputs, axis=-3), state


def unit_lower_inverse(lower: mx.array) -> mx.array:
    """Inverse of I + T, merged from the inverses of its diagonal blocks of 2, 4, 8, ... tokens.

    An entry of any of them is what one token's correction makes of another's through the transitions in between, so
    that it is as bounded as the recurrence: not above one for the gated delta rule, two with negative eigenvalues. The
    product of I + (-T)^(2^k) is shorter but passes through powers of T, whose entries are binomials: a key repeated 64
    times and wholly corrected makes it wrong by 3e10 in float32, where this form is exact.

    Args:
        lower: T, strictly lower triangular, (..., C, C); C is a power of two.
    """
    return cast("mx.array", _inverse(lower))


@mx.custom_function
def _inverse(lower: mx.array) -> mx.array:
    return _merged(lower)


@_inverse.vjp
def _inverse_vjp(lower: mx.array, cotangent: mx.array, inverse: mx.array) -> mx.array:
    transposed = inverse.swapaxes(-1, -2)
    return mx.tril(-(transposed @ cotangent @ transposed), -1)


def _merged(lower: mx.array) -> mx.array:
    size = lower.shape[-1]
    if size <= 2:
        return mx.eye(size) - lower
    half = size // 2
    first, second = _merged(mx.stack([lower[..., :half, :half], lower[..., half:, half:]]))
    below = -(second @ lower[..., half:, :half] @ first)
    rows = [mx.concatenate([first, mx.zeros_like(first)], axis=-1), mx.concatenate([below, second], axis=-1)]
    return mx.concatenate(rows, axis=-2)
