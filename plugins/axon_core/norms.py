"""Normalisation of the last axis, with MLX's fused kernels."""

from __future__ import annotations

from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import gated
from axon_core.elementary import sigmoid
from axon_core.kernels import StoredNorm, native_norm
from axon_core.norms_of_few import layer_norm, rms_norm
from axon_core.sharded import spread_group_norm, spread_norm
from axon_core.specs._heads import HeadNormOptions
from axon_core.specs.norms import StreamNormOptions

__all__ = ["GatedRMSNorm", "HeadNorm", "LayerNorm", "RMSNorm", "stream_norm", "unit_length"]


class RMSNorm(nn.Module):
    """Root-mean-square norm: `x / sqrt(mean(x²) + eps) * (offset + weight)`; the mean stays unless asked for.

    Zhang and Sennrich, 2019; weights around zero with an offset of 1 as in Gemma (Hugging Face's `Gemma3RMSNorm`).

    Args:
        dims: Width of the last axis.
        eps: Added to the mean square.
        weight: Whether each dimension has a learned scale.
        offset: Added to that scale, in float32 whatever the weights are.
        num_groups: Equal parts of neighbouring dimensions that are normalised each by itself.
        center: Whether the mean is subtracted first, as a layer norm does; of one group alone.
        scale_first: Whether the scale multiplies what is normalised instead of the result: it then weighs dimensions
            against each other (Hugging Face's `MuseSparkTextInputScaledRMSNorm`).
        shard: For channels that are split over devices: which part this is. `num_groups` are those of all channels,
            `dims` those of this device.
    """

    def __init__(
        self,
        dims: int,
        eps: float = 1e-6,
        weight: bool = True,
        num_groups: int = 1,
        *,
        offset: float = 0.0,
        center: bool = False,
        scale_first: bool = False,
        shard: Shard = Shard(),
    ) -> None:
        super().__init__()
        self.eps, self.offset, self.center = eps, offset, center
        self.num_groups, self._spread = _on_one_device(num_groups, shard)
        self.scale_first = scale_first
        self.weight = mx.full((dims,), 1.0 - offset) if weight else None

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> RMSNorm:
        """Build from `RMSNormOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, **dict(options))

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise `x` (..., dims)."""
        if self.offset != 0.0 and (y := self._of_few(x)) is not None:
            return y
        weight = _shifted(self.get("weight"), self.offset)
        if self.scale_first and weight is not None:
            return _rms_norm((x * weight).astype(x.dtype), None, self.eps, self.num_groups).astype(x.dtype)
        if self.center:
            return layer_norm(x, weight, None, self.eps).astype(x.dtype)
        return _grouped(self, x, weight).astype(x.dtype)

    def _of_few(self, x: mx.array) -> mx.array | None:
        """The norm of few numbers where a kernel is there for it, which adds the offset itself."""
        weight = self.get("weight")
        y = None if weight is None or self.stored() is None else native_norm(x, weight, self.eps, self.offset)
        return y if y is None else y.astype(x.dtype)

    def stored(self) -> StoredNorm | None:
        """What kernels read of it; None where it does more."""
        if self.num_groups > 1 or self._spread is not None or self.center or self.scale_first:
            return None
        return (self.get("weight"), self.eps, self.offset) if type(self).__call__ is RMSNorm.__call__ else None


class GatedRMSNorm(nn.Module):
    """Root-mean-square norm of an input that a second one gates: `norm(x * silu(gate)) * weight`.

    Args:
        dims: Width of the last axis.
        eps: Added to the mean square.
        num_groups: Equal parts of the last axis that are normalised each by itself.
        before_gate: Normalise first: `norm(x) * weight * silu(gate)`.
        shard: As of `RMSNorm`.
        activation: Of the gate: `silu`, or `sigmoid` instead.
    """

    def __init__(
        self,
        dims: int,
        eps: float,
        num_groups: int = 1,
        before_gate: bool = False,
        shard: Shard = Shard(),
        activation: Literal["silu", "sigmoid"] = "silu",
    ) -> None:
        super().__init__()
        self.eps, self.before_gate = eps, before_gate
        self.activation = activation
        self.num_groups, self._spread = _on_one_device(num_groups, shard)
        self.weight = mx.ones((dims,))

    def __call__(self, x: mx.array, gate: mx.array) -> mx.array:
        """Gate and normalise `x` (..., dims) with `gate` (..., dims)."""
        if self.before_gate:
            return self._gated(_grouped(self, x, self["weight"]), gate)
        return _grouped(self, self._gated(x, gate), self["weight"])

    def _gated(self, x: mx.array, gate: mx.array) -> mx.array:
        return gated("silu", gate, x) if self.activation == "silu" else x * sigmoid(gate)


def unit_length(x: mx.array, eps: float) -> mx.array:
    """`x / sqrt(sum(x²) + eps)` over the last axis."""
    # The norm divides by the root of the mean square, not of the sum: what it adds and what it gives are scaled.
    scale = x.shape[-1] ** -0.5
    return scale * mx.fast.rms_norm(x, None, eps * scale**2)


def _shifted(weight: mx.array | None, offset: float) -> mx.array | None:
    """The scale that a weight means: in float32 if an offset is added, since 1 + 0.003 is 1 in bfloat16."""
    return weight if weight is None or offset == 0.0 else weight.astype(mx.float32) + offset


def _on_one_device(num_groups: int, shard: Shard) -> tuple[int, Shard | None]:
    """How many groups a device normalises by itself; or those of all devices, and the shard that they need."""
    if num_groups % shard.size:
        return num_groups, shard
    return num_groups // shard.size, None


def _grouped(norm: RMSNorm | GatedRMSNorm, x: mx.array, weight: mx.array | None) -> mx.array:
    """The norm of groups, whether they lie on one device or on several."""
    if norm._spread is not None:
        return spread_group_norm(x, weight, norm.eps, norm.num_groups, norm._spread)
    return _rms_norm(x, weight, norm.eps, norm.num_groups)


def _rms_norm(x: mx.array, weight: mx.array | None, eps: float, num_groups: int) -> mx.array:
    """The norm of each of `num_groups` neighbouring parts of the last axis."""
    if num_groups == 1:
        return rms_norm(x, weight, eps)
    y = mx.fast.rms_norm(x.reshape(*x.shape[:-1], num_groups, -1), None, eps).reshape(x.shape)
    return y if weight is None else y * weight


class LayerNorm(nn.Module):
    """Layer norm: `(x - mean(x)) / sqrt(var(x) + eps) * (offset + weight) + bias`.

    Ba et al., 2016; weights around zero with an offset of 1 as in Nemotron (Hugging Face's `NemotronLayerNorm1P`).

    Args:
        dims: Width of the last axis.
        eps: Added to the variance.
        weight: Whether each dimension has a learned scale.
        bias: Whether each dimension has a learned shift.
        offset: Added to the scale, in float32 whatever the weights are.
    """

    def __init__(
        self, dims: int, eps: float = 1e-5, weight: bool = True, bias: bool = True, *, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = mx.full((dims,), 1.0 - offset) if weight else None
        self.bias = mx.zeros((dims,)) if bias else None

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> LayerNorm:
        """Build from `LayerNormOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, **dict(options))

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise `x` (..., dims)."""
        weight, bias = _shifted(self.get("weight"), self.offset), self.get("bias")
        return layer_norm(x, weight, bias, self.eps).astype(x.dtype)


def stream_norm(options: StreamNormOptions, dims: Dims) -> RMSNorm | LayerNorm:
    """The norm that is a branch of a block by itself, as wide as the hidden size."""
    if options.norm == "layer_norm":
        return LayerNorm(dims.hidden_size, options.eps, options.weight, options.bias, offset=options.offset)
    return RMSNorm(dims.hidden_size, options.eps, options.weight, offset=options.offset)


class HeadNorm(nn.Module):
    """Norm of the heads of queries or keys: of each by itself, or of all together.

    Args:
        heads: Number of heads.
        head_dim: Width of a head.
        options: `HeadNormOptions`.
        unit: Whether the scale is left to the caller.
        shard: For heads that are split over devices: which part this is; a norm of all heads needs it.
    """

    def __init__(
        self, heads: int, head_dim: int, options: HeadNormOptions, unit: bool = False, shard: Shard = Shard()
    ) -> None:
        super().__init__()
        self.unit, self._shard = unit, shard
        self.eps, self.offset, self.type = options.eps, options.offset, options.type
        self.over_all, self.per_head = options.over == "all", options.per_head
        shapes = options.shapes(heads, head_dim)
        self.weight = mx.full(shapes["weight"], 1.0 - options.offset) if "weight" in shapes else None
        self.bias = mx.zeros(shapes["bias"]) if "bias" in shapes else None

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise `x` (B, L, heads, head_dim)."""
        shape, dtype = x.shape, x.dtype
        if self.over_all:
            x = x.flatten(-2)
        weight = None if self.unit else _shifted(self.get("weight"), self.offset)
        bias = self.get("bias")
        shared, shift = (None, None) if self.per_head else (weight, bias)
        if self.over_all and self._shard.size > 1:
            y = spread_norm(x, shared, shift, self.eps, self._shard, center=self.type == "layer_norm")
        elif self.type == "layer_norm":
            y = layer_norm(x, shared, shift, self.eps)
        else:
            y = _rms_norm(x, shared, self.eps, 1)
        if shared is None and weight is not None:
            y = y * weight
            y = y if bias is None else y + bias
        return y.reshape(shape).astype(dtype)

    def stored(self) -> StoredNorm | None:
        """What kernels read of it, as a norm of each head by itself; None where it is another one, or does more."""
        each = not self.over_all and not self.per_head and not self.unit and self.type == "rms_norm"
        plain = each and "bias" not in self and type(self).__call__ is HeadNorm.__call__
        return (self.get("weight"), self.eps, self.offset) if plain else None

    def scaled(self, x: mx.array) -> mx.array:
        """`x` (..., head_dim) times the scale alone, in its own type."""
        scale = _shifted(self.get("weight"), self.offset)
        return x if scale is None else (x * scale).astype(x.dtype)
