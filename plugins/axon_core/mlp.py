"""Feed-forward layers and their activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.specs.mlp import ActivationName, MLPOptions

__all__ = ["ACTIVATIONS", "MLP"]

#: `gelu` is the exact one, `gelu_tanh` its usual approximation, `relu2` the square of relu.
ACTIVATIONS: Final[dict[ActivationName, Callable[[mx.array], mx.array]]] = {
    "silu": nn.silu,
    "gelu": nn.gelu,
    # Not nn.gelu_fast_approx, which is the sigmoid form.
    "gelu_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "relu2": nn.relu2,
}


class MLP(nn.Module):
    """Feed-forward layer: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.

    With `silu` and a gate it is SwiGLU, with `gelu` GeGLU (Shazeer 2020).

    Args:
        dims: Width of input and output.
        hidden_dims: Width between the matrices.
        activation: A name of `ACTIVATIONS`.
        gated: Whether there is a gate.
        bias: Whether the projections have biases.
    """

    def __init__(
        self, dims: int, hidden_dims: int, activation: ActivationName = "silu", gated: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        if gated:
            self.gate_proj = nn.Linear(dims, hidden_dims, bias=bias)
        self.up_proj = nn.Linear(dims, hidden_dims, bias=bias)
        self.down_proj = nn.Linear(hidden_dims, dims, bias=bias)
        # The name, for a compiled function cannot be copied or pickled.
        self.activation = activation

    @classmethod
    def from_options(cls, options: MLPOptions, dims: Dims) -> MLP:
        """Build from `MLPOptions`; input and output are as wide as the hidden size."""
        return cls(dims.hidden_size, options.intermediate_size, options.activation, options.gated, options.bias)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims); the shape stays."""
        act, up = ACTIVATIONS[self.activation], self.up_proj(x)
        return self.down_proj(act(self.gate_proj(x)) * up if "gate_proj" in self else act(up))
