"""The shift of RWKV's layers, by which a token sees the one before it."""

from __future__ import annotations

import mlx.core as mx

__all__ = ["token_shift"]


def token_shift(x: mx.array, mask: mx.array | None = None, state: mx.array | None = None) -> tuple[mx.array, mx.array]:
    """For each token the input of the real token before it.

    Args:
        x: Input, (B, L, D).
        mask: False on padding, (B, L). Padding is skipped on either side; a padded token's result means nothing.
        state: Input of the token before the first, (B, 1, D); zeros by default.

    Returns:
        The inputs before, (B, L, D), and that of each row's last real token, (B, 1, D): a row of padding keeps its
        state. Both typed as `x`.
    """
    batch, length, width = x.shape
    state = mx.zeros((batch, 1, width), dtype=x.dtype) if state is None else state.astype(x.dtype)
    seen = mx.concatenate([state, x], axis=1)
    if mask is None:
        # A copy, for a view would keep all of the inputs alive.
        return seen[:, :length], mx.contiguous(seen[:, length:])
    last = mx.cummax(mx.where(mask, mx.arange(1, length + 1), 0), axis=1)
    last = mx.pad(last, [(0, 0), (1, 0)])
    shifted = mx.take_along_axis(seen, last[..., None], axis=1)
    return shifted[:, :length], mx.contiguous(shifted[:, length:])
