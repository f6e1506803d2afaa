"""A matrix in the place of a layer."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.linear import Linear
from axon_core.specs.linear import LinearOptions
from axon_core.specs.splits.square import OUTPUTS

__all__ = ["Projection"]


class Projection(nn.Module):
    """`W x + b`.

    Args:
        dims: Width of input and output.
        bias: Whether there is a b.
        outputs: Rows of W; as many as its columns unless given.
    """

    def __init__(self, dims: int, bias: bool = False, outputs: int | None = None) -> None:
        super().__init__()
        self.linear = Linear(dims, outputs or dims, bias=bias)

    @classmethod
    def from_options(cls, options: LinearOptions, dims: Dims) -> Projection:
        """Build from `LinearOptions`; as wide as the hidden size, or a device's share of its outputs."""
        return cls(dims.hidden_size, options.bias, dims.get(OUTPUTS))

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims) to (..., outputs)."""
        out: mx.array = self.linear(x)
        return out
