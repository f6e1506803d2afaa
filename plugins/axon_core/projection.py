"""A matrix in the place of a layer."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.linear import Linear
from axon_core.specs.linear import LinearOptions

__all__ = ["Projection"]


class Projection(nn.Module):
    """`W x + b`.

    Args:
        dims: Width of input and output.
        bias: Whether there is a b.
    """

    def __init__(self, dims: int, bias: bool = False) -> None:
        super().__init__()
        self.linear = Linear(dims, dims, bias=bias)

    @classmethod
    def from_options(cls, options: LinearOptions, dims: Dims) -> Projection:
        """Build from `LinearOptions`; input and output are as wide as the hidden size."""
        return cls(dims.hidden_size, options.bias)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims); the shape stays."""
        out: mx.array = self.linear(x)
        return out
