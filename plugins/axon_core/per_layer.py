"""What belongs to a layer by its place: its part of the tokens' per-layer inputs, and a factor of its output."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import gated
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.sharded import looked_up, spread_norm
from axon_core.specs._per_layer_options import PerLayerOptions
from axon_core.specs.mlp import ActivationName
from axon_core.specs.per_layer import PerLayerInputOptions

__all__ = ["LayerScale", "PerLayerInput", "PerLayerInputs"]


class PerLayerInputs(nn.Module):
    """A second, narrow embedding with a vector of each token for every layer (Gemma 3n and 4).

    `(table(token) * sqrt(size) + norm(proj(h) / sqrt(hidden_size))) / sqrt(2)`, where h are the token's vectors as the
    stack gets them (Hugging Face's `Gemma4TextModel.project_per_layer_inputs`). Tokens that a shorter table does not
    have read its first row (`Gemma3nModel.forward`).

    Args:
        vocab_size: Number of tokens, unless the options say otherwise.
        hidden_size: Width D of h.
        options: `PerLayerOptions`.
        shard: For vectors of which each device has some of the numbers, or that of some tokens: which ones these are.
        held: Tokens whose vectors a device has; of all tokens some of the numbers unless given.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        options: PerLayerOptions,
        shard: Shard = Shard(),
        held: int | None = None,
    ) -> None:
        super().__init__()
        self.size, self.layers, self.hidden_size = options.size, options.layers, hidden_size
        self._of_tokens, self._of_width = (Shard(), shard) if held is None else (shard, Shard())
        width = options.layers * options.size
        self.rows = options.vocab_size or vocab_size
        self.embed_tokens = nn.Embedding(held or self.rows, width)
        self.proj = Linear(hidden_size, width, bias=False)
        self.norm = RMSNorm(options.size, options.norm_eps)

    def __call__(self, tokens: mx.array, h: mx.array) -> mx.array:
        """Inputs (B, L, layers, size) of `tokens` (B, L) with vectors `h` (B, L, D)."""
        shape = (*tokens.shape, self.layers, self.size)
        known = mx.where(tokens < self.rows, tokens, 0)  # MLX reads, and in training writes, beyond the end of a table
        own = looked_up(self["embed_tokens"], known, self._of_tokens)
        own = (own * (self.size * self._of_width.size) ** 0.5).reshape(shape)
        seen = self._normed((self["proj"](h) * self.hidden_size**-0.5).reshape(shape))
        return (own + seen) * 2**-0.5

    def _normed(self, x: mx.array) -> mx.array:
        if self._of_width.size == 1:
            return self["norm"](x)
        return spread_norm(x, self["norm"].weight, None, self["norm"].eps, self._of_width, center=False).astype(x.dtype)


class PerLayerInput(nn.Module):
    """A layer that lets a token's per-layer input in: `down(act(gate(x)) * p)`, with p that of this layer.

    (Gemma 3n and 4; Hugging Face's `per_layer_input_gate` and `per_layer_projection`.)

    Args:
        dims: Width of input and output.
        size: Width of per-layer inputs.
        index: Which of them it reads.
        activation: Activation of the gate, a name of `axon_core.activations.ACTIVATIONS`.
    """

    def __init__(self, dims: int, size: int, index: int, activation: ActivationName = "gelu_tanh") -> None:
        super().__init__()
        self.index, self.activation = index, activation
        self.gate_proj = Linear(dims, size, bias=False)
        self.down_proj = Linear(size, dims, bias=False)

    @classmethod
    def from_options(cls, options: PerLayerInputOptions, dims: Dims) -> PerLayerInput:
        """Build from `PerLayerInputOptions`; input and output are as wide as the hidden size."""
        return cls(dims.hidden_size, **dict(options))

    def __call__(self, x: mx.array, per_layer_inputs: mx.array) -> mx.array:
        """Transform `x` (B, L, dims) with the tokens' `per_layer_inputs` (B, L, layers, size); the shape stays."""
        return self["down_proj"](gated(self.activation, self["gate_proj"](x), per_layer_inputs[:, :, self.index]))


class LayerScale(nn.Module):
    """`x * scale`: one number that multiplies the residual stream (`layer_scalar` of Gemma 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = mx.ones((1,))

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> LayerScale:
        """Build from `LayerScaleOptions`, of which there are none."""
        return cls()

    def __call__(self, x: mx.array) -> mx.array:
        """Scale `x`, of any shape."""
        return x * self["scale"]
