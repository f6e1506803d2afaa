"""Feed-forward layers."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.activations import ACTIVATIONS, gated
from axon_core.linear import Linear
from axon_core.specs.mlp import MLPActivationName, MLPOptions
from axon_core.xielu import XIELU

__all__ = ["MLP"]


class MLP(nn.Module):
    """Feed-forward layer: `down(act(s * gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.

    With `silu` and a gate it is SwiGLU, with `gelu` GeGLU (Shazeer 2020). The factor s is that of Falcon-H1.

    Args:
        dims: Width of input and output.
        hidden_dims: Width between the matrices.
        activation: A name of `axon_core.activations.ACTIVATIONS`, `swiglu_oai`, or without a gate `xielu`.
        gated: Whether there is a gate.
        bias: Whether the projections have biases.
        limit: Bound of both factors of a gated layer (see `axon_core.activations.gated`).
        gate_scale: Factor s of the gate's projection.
    """

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        activation: MLPActivationName = "silu",
        gated: bool = True,
        bias: bool = False,
        limit: float | None = None,
        gate_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if gated:
            self.gate_proj = Linear(dims, hidden_dims, bias=bias)
        self.up_proj = Linear(dims, hidden_dims, bias=bias)
        self.down_proj = Linear(hidden_dims, dims, bias=bias)
        # The name, for a compiled function cannot be copied or pickled.
        self.activation, self.limit, self.gate_scale = activation, limit, gate_scale
        if activation == "xielu":
            self.act_fn = XIELU()

    @classmethod
    def from_options(cls, options: MLPOptions, dims: Dims) -> MLP:
        """Build from `MLPOptions`; input and output are as wide as the hidden size."""
        hidden, width = dims.hidden_size, options.intermediate_size
        return cls(hidden, width, options.activation, options.gated, options.bias, options.limit, options.gate_scale)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims); the shape stays."""
        up = self.up_proj(x)
        if "gate_proj" in self:
            gate = self.gate_proj(x)
            if self.gate_scale != 1.0:
                gate = gate * self.gate_scale
            return self.down_proj(gated(self.activation, gate, up, self.limit))
        act = self.act_fn if "act_fn" in self else ACTIVATIONS[self.activation]
        return self.down_proj(act(up))
