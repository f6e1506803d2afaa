"""Feed-forward layers."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import ACTIVATIONS, gated
from axon_core.few_tokens import inherits, mlp_of_few
from axon_core.kernels import GATES
from axon_core.linear import Linear
from axon_core.sharded import mean_and_variance
from axon_core.specs.mlp import Limit, MLPActivationName, MLPOptions, bound_of
from axon_core.specs.splits.mlp import OUTPUTS
from axon_core.xielu import XIELU

__all__ = ["MLP"]


class MLP(nn.Module):
    """Feed-forward layer: `down(act(s * gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.

    With `silu` and a gate it is SwiGLU, with `gelu` GeGLU (Shazeer 2020). The factor s is that of Falcon-H1. With a
    sparsity p, what is below a cutoff in the gate becomes 0 before the activation, and the cutoff is taken off the
    rest: `relu(g - mean(g) - std(g) * q)` with q the p-quantile of the normal distribution (Gemma 3n's
    `_gaussian_topk`).

    Args:
        dims: Width of input and output.
        hidden_dims: Width between the matrices.
        activation: A name of `axon_core.activations.ACTIVATIONS`, `swiglu_oai`, `situ`, or without a gate `xielu`.
        gated: Whether there is a gate.
        bias: Whether the projections have biases.
        limit: Bound of both factors of a gated layer (see `axon_core.activations.gated`).
        gate_scale: Factor s of the gate's projection.
        sparsity: Share p of the gate that is to be 0; none unless given.
        shard: Which part of a layer that is split over devices it is; the whole unless given.
        outputs: For a part that has some rows of the last matrix, and reads what all devices have between the
            matrices: how many; a part otherwise has some columns.
        gain: Whether the output has a learned factor.
    """

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        activation: MLPActivationName = "silu",
        gated: bool = True,
        bias: bool = False,
        limit: Limit = None,
        gate_scale: float = 1.0,
        sparsity: float | None = None,
        shard: Shard = Shard(),
        outputs: int | None = None,
        gain: bool = False,
    ) -> None:
        super().__init__()
        self._shard, self.gathers = shard, outputs is not None
        if gated:
            self.gate_proj = Linear(dims, hidden_dims, bias=bias)
        self.up_proj = Linear(dims, hidden_dims, bias=bias)
        inputs = hidden_dims * shard.size if self.gathers else hidden_dims
        self.down_proj = Linear(inputs, outputs or dims, bias=bias)
        # The name, for a compiled function cannot be copied or pickled.
        self.activation, self.limit, self.gate_scale = activation, limit, gate_scale
        if activation == "xielu":
            self.act_fn = XIELU()
        if gain:
            self.gain = mx.ones((1,))
        self.cutoff = None if sparsity is None else NormalDist().inv_cdf(sparsity)

    @classmethod
    def from_options(cls, options: MLPOptions, dims: Dims) -> MLP:
        """Build from `MLPOptions`; input and output are as wide as the hidden size."""
        given = dict(options)
        given["limit"] = bound_of(options.activation, options.limit, given.pop("situ"))
        given |= {"shard": dims.shard, "outputs": dims.get(OUTPUTS)}
        return cls(dims.hidden_size, given.pop("intermediate_size"), **given)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims); the shape stays."""
        if (y := mlp_of_few(self, x)) is not None:
            return y
        inner = self._inner(x)
        y = self["down_proj"](self._shard.gather(inner) if self.gathers else inner)
        return y * self.gain.astype(y.dtype) if "gain" in self else y

    def residual(self, norm: nn.Module | None, x: mx.array, **more: Any) -> mx.array | None:
        """`x + self(norm(x))` in one operation; None where it is to be computed in steps, or called with more."""
        return None if more else mlp_of_few(self, x, norm, adds=True)

    def is_plain(self) -> bool:
        """Whether it is `down(act(gate(x)) * up(x))` by an activation of `GATES`, as it now stands."""
        bounded = self.limit is not None or self.cutoff is not None
        more = bounded or self.gate_scale != 1.0 or self.gathers or "gain" in self
        return (
            not more and self.activation in GATES and "gate_proj" in self and inherits(self, MLP, "__call__", "_inner")
        )

    def _inner(self, x: mx.array) -> mx.array:
        """What is between the matrices, (..., hidden_dims)."""
        up = self["up_proj"](x)
        if self.activation == "xielu":
            return self["act_fn"](up)
        if "gate_proj" in self:
            gate = self["gate_proj"](x)
            if self.gate_scale != 1.0:
                gate = gate * self.gate_scale
            if self.cutoff is not None:
                gate = _above(gate, self.cutoff, self._shard)
            return gated(self.activation, gate, up, self.limit)
        return ACTIVATIONS[self.activation](up)


def _above(gate: mx.array, cutoff: float, shard: Shard) -> mx.array:
    """How far `gate` (..., width) is above its mean plus `cutoff` standard deviations; 0 where it is below."""
    mean, variance = mean_and_variance(gate, shard)
    return mx.maximum(gate - (mean + mx.sqrt(variance) * cutoff).astype(gate.dtype), 0.0)
