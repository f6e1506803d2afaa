"""The causal depthwise convolution before recurrent layers, and the inputs that it keeps as state."""

from __future__ import annotations

from math import sqrt

import mlx.core as mx
import mlx.nn as nn

from axon_core.kernels import native_convolution

__all__ = ["causal_conv", "draw_taps", "last_inputs"]


def draw_taps(conv: nn.Conv1d) -> None:
    """Draw the taps of a depthwise convolution anew, scaled to those that a channel has; MLX counts all channels."""
    bound = 1 / sqrt(conv.weight.shape[1])
    conv.weight = mx.random.uniform(-bound, bound, conv.weight.shape)


def causal_conv(
    conv: nn.Conv1d,
    x: mx.array,
    mask: mx.array | None = None,
    state: mx.array | None = None,
    dilation: int = 1,
) -> tuple[mx.array, mx.array]:
    """Convolve every channel with its own K taps, over the current token and K - 1 before it.

    Args:
        conv: Holds the taps, `weight` (E, K, 1), and perhaps a `bias` (E,); mlx-lm names it `conv1d`.
        x: Input, (B, L, E).
        mask: False on padding, (B, L); a padded token counts as zero.
        state: The inputs before the first token, (B, (K - 1) * dilation, E); zeros by default.
        dilation: Tokens from one tap to the next.

    Returns:
        The output (B, L, E) in float32, and the inputs that the next chunk has to see, shaped as `state`, typed as `x`.
    """
    batch, length, channels = x.shape
    weight = conv.weight[..., 0].astype(mx.float32)
    taps = weight.shape[1]
    before = (taps - 1) * dilation
    if mask is not None:
        x = mx.where(mask[..., None], x, mx.zeros((), dtype=x.dtype))
    if state is None:
        state = mx.zeros((batch, before, channels), dtype=x.dtype)
    window = mx.concatenate([state.astype(x.dtype), x], axis=1)
    bias = conv.bias if "bias" in conv else None
    if length > 1 and (y := native_convolution(x, state, weight, bias, dilation)) is not None:
        return y, last_inputs(window, mask, before)

    if length == 1:
        y = (window[:, ::dilation] * weight.T).sum(axis=1, keepdims=True)
    else:
        # A sum of shifted products is several times faster than a grouped convolution on the CPU, and by taps whose
        # channels lie side by side twice as fast again.
        by_tap = weight.T.flatten().reshape(taps, channels)
        y = window[:, :length] * by_tap[0]
        for k in range(1, taps):
            y = y + window[:, k * dilation : k * dilation + length] * by_tap[k]
    if bias is not None:
        y = y + bias
    return y, last_inputs(window, mask, before)


def last_inputs(window: mx.array, mask: mx.array | None, kept: int) -> mx.array:
    """The `kept` inputs up to each row's last real token, out of (B, kept + L, E); a row of padding keeps its state."""
    length = window.shape[1] - kept
    if mask is None or kept == 0:
        # A copy, for a view would keep the whole window alive.
        return mx.contiguous(window[:, length:])
    ends = mx.max(mx.where(mask, mx.arange(1, length + 1), 0), axis=1)
    return mx.take_along_axis(window, (ends[:, None] + mx.arange(kept))[..., None], axis=1)
