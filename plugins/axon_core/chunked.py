"""What delta rules share that run over chunks of tokens: the cut into chunks, and the system that is solved in each."""

from __future__ import annotations

from typing import cast

import mlx.core as mx

__all__ = ["cut", "unit_lower_inverse"]


def cut(a: mx.array, chunk: int) -> mx.array:
    """(..., L, W) to (..., chunks, chunk, W); the missing tokens are zeros."""
    missing = -a.shape[-2] % chunk
    if missing:
        a = mx.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, missing), (0, 0)])
    return a.reshape(*a.shape[:-2], -1, chunk, a.shape[-1])


def unit_lower_inverse(lower: mx.array) -> mx.array:
    """Inverse of I + T, merged from the inverses of its diagonal blocks of 2, 4, 8, ... tokens.

    An entry of any of them is what one token's correction makes of another's through the transitions in between, so
    that it is as bounded as the recurrence: not above one for the gated delta rule. The product of I + (-T)^(2^k) is
    shorter but passes through powers of T, whose entries are binomials: a key repeated 64 times and wholly corrected
    makes it wrong by 3e10 in float32, where this form is exact.

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
