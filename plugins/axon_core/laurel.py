"""Learned augmented residual layer (Gemma 3n)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.specs.laurel import LaurelOptions

__all__ = ["Laurel"]


class Laurel(nn.Module):
    """`x + norm(right(left(x)))` (Hugging Face's `Gemma3nTextLaurelBlock`).

    Args:
        dims: Width of input and output.
        rank: Width between the two matrices.
        norm_eps: Added to the mean square in the norm.
    """

    def __init__(self, dims: int, rank: int = 64, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.left_proj = Linear(dims, rank, bias=False)
        self.right_proj = Linear(rank, dims, bias=False)
        self.norm = RMSNorm(dims, norm_eps)

    @classmethod
    def from_options(cls, options: LaurelOptions, dims: Dims) -> Laurel:
        """Build from `LaurelOptions`; input and output are as wide as the hidden size."""
        return cls(dims.hidden_size, options.rank, options.norm_eps)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims); the shape stays."""
        return x + self.norm(self.right_proj(self.left_proj(x)))
