"""One residual stream whose branches are convolved over a few tokens before they are added (Inkling)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.conv import causal_conv, draw_taps
from axon_core.specs.branch_convolutions import BranchConvolutionsOptions
from axon_core.states import read_states, write_states

__all__ = ["BranchConvolutions", "Convolved", "Plain"]


class Plain(nn.Module):
    """Around a branch: it reads the stream and is added to it."""

    @classmethod
    def from_options(cls, options: BranchConvolutionsOptions, dims: Dims) -> Plain:
        """Build from `BranchConvolutionsOptions`."""
        return cls()

    def read(self, state: mx.array) -> tuple[mx.array, mx.array]:
        """What the branch reads, (B, L, D), and the state, which is the same."""
        return state, state

    def write(self, state: mx.array, y: mx.array) -> mx.array:
        """The state with what the branch gave, `y` (B, L, D)."""
        return state + y


class Convolved(nn.Module):
    """Around a branch f: `x + f(x) + conv(f(x))`, with a causal depthwise convolution, in float32.

    Args:
        hidden_size: Width D of the stream.
        d_conv: Tokens that the convolution sees, the current one included.
    """

    def __init__(self, hidden_size: int, d_conv: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(hidden_size, hidden_size, d_conv, groups=hidden_size, bias=False)
        draw_taps(self.conv)

    @classmethod
    def from_options(cls, options: BranchConvolutionsOptions, dims: Dims) -> Convolved:
        """Build from `BranchConvolutionsOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options.d_conv)

    def read(self, state: mx.array) -> tuple[mx.array, mx.array]:
        """What the branch reads, (B, L, D), and the state, which is the same."""
        return state, state

    def write(self, state: mx.array, y: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        """The state with what the branch gave.

        Args:
            state: (B, L, D).
            y: The branch's output, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, or mlx-lm's `ArraysCache(1)` with the last `d_conv - 1` outputs of the branch; updated.

        Returns:
            (B, L, D).
        """
        length = y.shape[1]
        (before,), mask = read_states(cache, mask, length, count=1)
        convolved, before = causal_conv(self.conv, y, mask, before)
        write_states(cache, [before], length)
        return state + (y.astype(mx.float32) + convolved).astype(y.dtype)


class BranchConvolutions(nn.Module):
    """Both ends: the stream is what comes in and goes out."""

    @classmethod
    def from_options(cls, options: BranchConvolutionsOptions, dims: Dims) -> BranchConvolutions:
        """Build from `BranchConvolutionsOptions`."""
        return cls()

    def expand(self, h: mx.array) -> mx.array:
        """The state before the first layer, of the embedding (B, L, D)."""
        return h

    def collapse(self, state: mx.array) -> mx.array:
        """(B, L, D) for the final norm."""
        return state
