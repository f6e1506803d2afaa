"""Root-mean-square norm that a small network of its output gates (A.X K2)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.elementary import sigmoid, silu
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.specs.self_gated_norm import SelfGatedNormOptions

__all__ = ["SelfGatedNorm"]


class SelfGatedNorm(nn.Module):
    """`n * sigmoid(up(silu(down(n))))` of `n = norm(x)` (Hugging Face's `AXK2GatedRMSNorm`).

    Args:
        dims: Width of input and output.
        rank: Width between the two matrices of the gate.
        eps: Added to the mean square.
    """

    def __init__(self, dims: int, rank: int = 16, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dims, eps)
        self.down_proj = Linear(dims, rank, bias=False)
        self.up_proj = Linear(rank, dims, bias=False)

    @classmethod
    def from_options(cls, options: SelfGatedNormOptions, dims: Dims) -> SelfGatedNorm:
        """Build from `SelfGatedNormOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options.rank, options.eps)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise `x` (..., dims)."""
        normed = self["norm"](x)
        return normed * sigmoid(self["up_proj"](silu(self["down_proj"](normed))))
