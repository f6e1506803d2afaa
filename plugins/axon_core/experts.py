"""Expert matrices: mlx-lm's switch layers, made to work in every type on every device.

`mx.gather_mm` on the CPU takes float32 alone. `ExpertLinear` therefore works in float32 there and returns the type of
its input. It is a `SwitchLinear`, so that the recipes for LoRA and quantisation find it.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import SwitchGLU, SwitchLinear, SwitchMLP

from axon_core.activations import ACTIVATIONS, gated
from axon_core.specs.mlp import ActivationName

__all__ = ["ExpertGLU", "ExpertLinear", "ExpertMLP"]


class ExpertLinear(SwitchLinear):
    """One linear layer per expert, `weight` (experts, output, input); each row of the input goes to one of them."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each row by the matrix of its expert.

        Args:
            x: Input, (..., 1, input); its leading axes broadcast with those of `indices`.
            indices: Expert of each row, (...).
            sorted_indices: Whether `indices` rise, which lets the GPU read each matrix once.

        Returns:
            Output, (..., 1, output), in the type of `x`.
        """
        weight = self["weight"]
        if x.dtype == weight.dtype == mx.float32 or mx.default_device().type != mx.DeviceType.cpu:
            return super().__call__(x, indices, sorted_indices)
        wide = x.astype(mx.float32)
        if indices.size <= self.num_experts:
            # Few rows, as in decoding: converting the matrices that are used is less than converting all.
            y = wide @ weight[indices].astype(mx.float32).swapaxes(-1, -2)
        else:
            matrices = weight.astype(mx.float32).swapaxes(-1, -2)
            y = mx.gather_mm(wide, matrices, rhs_indices=indices, sorted_indices=sorted_indices)
        if "bias" in self:
            y = y + mx.expand_dims(self["bias"][indices], -2)
        return y.astype(x.dtype)


class _Activation(nn.Module):
    """An activation by its name, for a compiled function cannot be copied or pickled."""

    def __init__(self, name: ActivationName, limit: float | None = None) -> None:
        super().__init__()
        self.name, self.limit = name, limit

    def __call__(self, x: mx.array, gate: mx.array | None = None) -> mx.array:
        """Of `x`, or of the gate, times `x`: the argument order of `SwitchGLU`."""
        return ACTIVATIONS[self.name](x) if gate is None else gated(self.name, gate, x, self.limit)


class ExpertGLU(SwitchGLU):
    """Gated feed-forward experts: `down(act(gate(x)) * up(x))`.

    Args:
        dims: Width of input and output.
        hidden_dims: Width of each expert.
        num_experts: Number of experts.
        activation: Activation of the gate, a name of `axon_core.activations.ACTIVATIONS`, or `swiglu_oai`.
        bias: Whether the projections have biases.
        limit: Bound of both factors (see `axon_core.activations.gated`).
    """

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        num_experts: int,
        activation: ActivationName = "silu",
        bias: bool = False,
        limit: float | None = None,
    ) -> None:
        # Not SwitchGLU's own: it would make the matrices twice.
        nn.Module.__init__(self)
        self.gate_proj = ExpertLinear(dims, hidden_dims, num_experts, bias=bias)
        self.up_proj = ExpertLinear(dims, hidden_dims, num_experts, bias=bias)
        self.down_proj = ExpertLinear(hidden_dims, dims, num_experts, bias=bias)
        self.activation = _Activation(activation, limit)


class ExpertMLP(SwitchMLP):
    """Feed-forward experts of two matrices: `fc2(act(fc1(x)))`; arguments as for `ExpertGLU`, without a limit."""

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        num_experts: int,
        activation: ActivationName = "silu",
        bias: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.fc1 = ExpertLinear(dims, hidden_dims, num_experts, bias=bias)
        self.fc2 = ExpertLinear(hidden_dims, dims, num_experts, bias=bias)
        self.activation = _Activation(activation)
