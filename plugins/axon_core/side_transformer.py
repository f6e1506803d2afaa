"""A transformer layer beside the stack: one set of matrices for many uses, each with adapters of its own (Zamba2).

It reads the residual stream and the embedding side by side. The first use holds the matrices and hands them on, as
others hand on keys and values; what is quantised or has LoRA adapters is handed on as the matrix that it means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.activations import gated
from axon_core.linear import Linear
from axon_core.rope import RoPE
from axon_core.scores import causal_attention
from axon_core.specs.side_transformer import SideTransformerOptions
from axon_core.window import Mask

__all__ = ["SideTransformer"]

#: Matrices that every use shares, in the order in which they are handed on.
_SHARED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_NORMS = ("input_norm", "mlp_norm")


class SideTransformer(nn.Module):
    """Attention and MLP, one after the other and without residual connections between them.

        h = input_norm([x, e])                               twice as wide as the model, with the embedding e
        a = o_proj(attention(q_proj(h) + q_b(q_a(h)), …))    scores times (head_dim / 2) ** -0.5
        m = mlp_norm(a)
        y = linear(down_proj(act(gate_proj(m) + gate_b(mlp_a(m))) * (up_proj(m) + up_b(mlp_a(m)))))

    (Hugging Face's `Zamba2AttentionDecoderLayer` and `Zamba2HybridLayer.linear`.) `linear` and the adapters are those
    of this use; the adapters of all uses are beside the matrices.

    Args:
        hidden_size: Width D of input and output.
        options: `SideTransformerOptions`.
        shard: For heads and a width that are split over devices: each has a part of the sum that is attention's output.
    """

    def __init__(self, hidden_size: int, options: SideTransformerOptions, shard: Shard = Shard()) -> None:
        super().__init__()
        self.options, self._summed = options, shard.sum
        self.linear = Linear(hidden_size, hidden_size, bias=False)
        self.rope = None if options.rope is None else RoPE(options.head_dim, options.rope)
        if options.weights_from is not None:
            return
        for name, (outputs, inputs) in options.matrices(hidden_size).items():
            self[name] = Linear(inputs, outputs, bias=False)
        self.input_norm, self.mlp_norm = nn.RMSNorm(2 * hidden_size), nn.RMSNorm(hidden_size)
        for number in options.uses:
            adapters = nn.Module()
            for name, (outputs, inputs) in options.adapters(hidden_size).items():
                adapters[name] = Linear(inputs, outputs, bias=False)
            self[f"use_{number}"] = adapters

    @classmethod
    def from_options(cls, options: SideTransformerOptions, dims: Dims) -> SideTransformer:
        """Build from `SideTransformerOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options, dims.shard)

    def __call__(
        self,
        x: mx.array,
        mask: Mask = None,
        cache: Any = None,
        offset: int | mx.array | None = None,
        *,
        vectors: mx.array,
        weights: tuple[mx.array, ...] | None = None,
        publish: Callable[[str, Any], None] | None = None,
    ) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: (B, L, D).
            mask: None or "causal" for the causal mask, or a boolean array that broadcasts to (B, H, L, S).
            cache: An mlx-lm cache of keys and values, updated in place, or None.
            offset: Position of the first token, int or (B,); the cache's own, or 0, unless given.
            vectors: The embedding, (B, L, D).
            weights: What the first use has published.
            publish: Called with `("weights", arrays)`.

        Returns:
            The output (B, L, D), and `cache`.
        """
        if weights is None:
            weights = self._weights()
        if publish is not None:
            publish("weights", weights)
        if offset is None:
            offset = 0 if cache is None else cache.offset
        if not isinstance(mask, mx.array) and hasattr(cache, "make_mask"):
            mask = cache.make_mask(x.shape[1], return_array=False, window_size=None)
        shared = dict(zip((*_NORMS, *_SHARED), weights, strict=False))
        own = self._adapters(weights[len(shared) :])
        eps = self.options.norm_eps
        h = mx.fast.rms_norm(mx.concatenate([x, vectors], axis=-1), shared["input_norm"], eps)
        a = self._summed(self._attention(h, shared, own, mask, cache, offset))
        m = mx.fast.rms_norm(a, shared["mlp_norm"], eps)
        gate, up = (_adapted(m, shared[f"{name}_proj"], own, "mlp", name) for name in ("gate", "up"))
        y = gated(self.options.activation, gate, up) @ shared["down_proj"].T
        return self.linear(y), cache

    def _weights(self) -> tuple[mx.array, ...]:
        """Norms, matrices and the adapters of all uses."""
        norms = [self[name].weight for name in _NORMS]
        adapters = [_matrix(part) for number in self.options.uses for _, part in sorted(self[f"use_{number}"].items())]
        return (*norms, *(_matrix(self[name]) for name in _SHARED), *adapters)

    def _adapters(self, weights: tuple[mx.array, ...]) -> dict[str, mx.array]:
        """Those of this use."""
        names = sorted(self.options.adapters(1))
        start = self.options.uses.index(self.options.use) * len(names)
        return dict(zip(names, weights[start : start + len(names)], strict=True))

    def _attention(
        self,
        h: mx.array,
        shared: dict[str, mx.array],
        own: dict[str, mx.array],
        mask: Mask,
        cache: Any,
        offset: int | mx.array,
    ) -> mx.array:
        heads = {}
        for name in "qkv":
            y = _adapted(h, shared[f"{name}_proj"], own, name, name)
            y = mx.unflatten(y, -1, (-1, self.options.head_dim)).transpose(0, 2, 1, 3)
            heads[name] = y if self.rope is None or name == "v" else self.rope(y, offset)
        keys, values = heads["k"], heads["v"]
        if cache is not None:
            keys, values = cache.update_and_fetch(keys, values)
        padding, scale = getattr(cache, "left_padding", None), (self.options.head_dim / 2) ** -0.5
        y = causal_attention(heads["q"], keys, values, mask, left_padding=padding, scale=scale)
        return y.transpose(0, 2, 1, 3).flatten(2) @ shared["o_proj"].T


def _adapted(x: mx.array, matrix: mx.array, own: dict[str, mx.array], down: str, up: str) -> mx.array:
    """`x` times a shared matrix, and through the two narrow ones of this use where it has them."""
    y = x @ matrix.T
    return y + (x @ own[f"{down}_a"].T) @ own[f"{up}_b"].T if f"{down}_a" in own else y


def _matrix(module: Any) -> mx.array:
    """The matrix that a linear layer means, quantised or with low-rank adapters or not."""
    if "lora_a" in module:
        return _matrix(module.linear) + (module.scale * module.lora_a @ module.lora_b).T.astype(module.lora_a.dtype)
    if "scales" not in module:
        return module.weight
    biases = module.biases if "biases" in module else None
    return mx.dequantize(
        module.weight, module.scales, biases, group_size=module.group_size, bits=module.bits, mode=module.mode
    )
