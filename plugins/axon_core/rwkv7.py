"""The two layers of RWKV-7 (Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution")."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.elementary import relu2, sigmoid
from axon_core.linear import Linear
from axon_core.specs.rwkv7 import RWKV7ChannelMixOptions, RWKV7TimeMixOptions
from axon_core.states import read_states, write_states
from axon_core.token_shift import token_shift
from axon_core.wkv7 import wkv7

__all__ = ["RWKV7ChannelMix", "RWKV7TimeMix"]

#: No decay is less than the exponential of this.
_LOG_W: Final = -exp(-0.5)
#: Least length by which a removal key is divided.
_SHORTEST: Final = 1e-7
#: How steeply the shares of the token before fall over the channels of a new layer, from 1 to 0.
_SLOPES: Final = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}


class RWKV7TimeMix(nn.Module):
    """RWKV-7's time mixing.

        x_c = x + (x_before - x) * mix_c                        for each of c = r, w, k, v, a, g
        r, k, v = r_proj(x_r), k_proj(x_k), v_proj(x_v)
        w = exp(-exp(-1/2) * sigmoid(w_lora(x_w)))              decays
        a = sigmoid(a_lora(x_a))                                in-context rates
        v = v + (v_first - v) * sigmoid(v_lora(x_v))            with `value_from`
        d = k * k_k / |k * k_k|                                 removal keys, of length one in each head
        k = k * (1 + (a - 1) * k_a)
        o = norm(wkv7(r, w, k, v, -d, a * d)) + sum(r * k * r_k) * v
        y = o_proj(o * g_lora(x_g))

    Each `lora` is a product of two matrices with an activation between: tanh for w, sigmoid for g, none for a and v.
    The norm is a layer norm of each head. What heads do, from the decays to the gate, is computed in float32.
    Parameters are named and laid out as in mlx-lm's `Rwkv7TimeMixing`.

    Args:
        options: `RWKV7TimeMixOptions`; with `value_from` the layer is called with the values to mix in.
        hidden_size: Width D of input and output.

    Raises:
        ValueError: If the hidden size is not a multiple of `head_dim`, and says how many heads there are.
    """

    def __init__(self, options: RWKV7TimeMixOptions, hidden_size: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = options.heads(hidden_size), options.head_dim
        inner = self.num_heads * self.head_dim
        for name, slope in _SLOPES.items():
            self[f"x_{name}"] = _shares(hidden_size, slope).reshape(1, 1, -1)
        for name in "rkv":
            self[f"{name}_proj"] = Linear(hidden_size, inner, bias=False)
        self.o_proj = Linear(inner, hidden_size, bias=False)
        self.w_lora = LowRank(hidden_size, options.decay_low_rank_dim, inner, nn.Tanh())
        self.a_lora = LowRank(hidden_size, options.a_low_rank_dim, inner, nn.Identity())
        if options.value_from is not None:
            self.v_lora = LowRank(hidden_size, options.v_low_rank_dim, inner, nn.Identity())
        self.g_lora = LowRank(hidden_size, options.gate_low_rank_dim, inner, nn.Sigmoid(), bias=False)
        heads = (self.num_heads, self.head_dim)
        self.k_k, self.k_a, self.r_k = 0.85 * mx.ones(heads), mx.ones(heads), mx.zeros(heads)
        self.g_norm = HeadLayerNorm(*heads, options.norm_eps)
        # As in the paper's code: the first decays are from 0.999 to 0.9, and three quarters of `value_from` are let in.
        self.w_lora.lora[2].bias = 5 * mx.linspace(0, 1, inner) ** 0.85 - 6.5
        self.a_lora.lora[2].bias = mx.zeros((inner,))
        if "v_lora" in self:
            self.v_lora.lora[2].bias = mx.ones((inner,))

    @classmethod
    def from_options(cls, options: RWKV7TimeMixOptions, dims: Dims) -> RWKV7TimeMix:
        """Build from `RWKV7TimeMixOptions`; as wide as the hidden size."""
        return cls(options, dims.hidden_size)

    def __call__(
        self,
        x: mx.array,
        mask: mx.array | None = None,
        cache: Any = None,
        value: mx.array | None = None,
        publish: Callable[[str, mx.array], None] | None = None,
    ) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(2)`, which is updated, or a list of the two arrays, which is not.
            value: Values of the layer that is read, (B, L, H head_dim); with `value_from` alone.
            publish: Called with `"value"` and the own values, (B, L, H head_dim).

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last input, (B, 1, D), entry 1 the state,
            (B, H, head_dim, head_dim) in float32. Without a cache, a new list.
        """
        length = x.shape[1]
        (shift, state), mask = read_states(cache, mask, length)
        before, shift = token_shift(x, mask, shift)
        x_r, x_w, x_k, x_v, x_a, x_g = _mixed(x, before, [self[f"x_{name}"] for name in "rwkvag"])

        v = self["v_proj"](x_v)
        if publish is not None:
            publish("value", v)
        if "v_lora" in self:
            v = v + (value - v) * sigmoid(self["v_lora"](x_v))
        r, k, v, a = (self._heads(y) for y in (self["r_proj"](x_r), self["k_proj"](x_k), v, self["a_lora"](x_a)))
        log_w, a = _LOG_W * sigmoid(self._heads(self["w_lora"](x_w))), sigmoid(a)
        removed = _unit(k * self["k_k"])
        k = k * (1 + (a - 1) * self["k_a"])
        o, state = wkv7(r, log_w, k, v, -removed, removed * a, state, mask)
        o = self["g_norm"](o) + (r * k * self["r_k"]).sum(-1, keepdims=True) * v
        y = self["o_proj"]((o.flatten(2) * self["g_lora"](x_g)).astype(x.dtype))
        return y, write_states(cache, [shift, state], length)

    def _heads(self, y: mx.array) -> mx.array:
        """(B, L, H head_dim) to (B, L, H, head_dim), in float32."""
        return mx.unflatten(y.astype(mx.float32), -1, (self.num_heads, self.head_dim))


class RWKV7ChannelMix(nn.Module):
    """RWKV-7's feed-forward layer: `value(relu(key(x + (x_before - x) * x_k))^2)`.

    Parameters are named and laid out as in mlx-lm's `Rwkv7ChannelMixing`.

    Args:
        hidden_size: Width D of input and output.
        intermediate_size: Width between the matrices.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.x_k = _shares(hidden_size, 1.0)
        self.key = Linear(hidden_size, intermediate_size, bias=False)
        self.value = Linear(intermediate_size, hidden_size, bias=False)

    @classmethod
    def from_options(cls, options: RWKV7ChannelMixOptions, dims: Dims) -> RWKV7ChannelMix:
        """Build from `RWKV7ChannelMixOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options.intermediate_size)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(1)`, which is updated, or a list of the one array, which is not.

        Returns:
            The output (B, L, D), and the cache: entry 0 holds the last input, (B, 1, D). Without a cache, a new list.
        """
        length = x.shape[1]
        (shift,), mask = read_states(cache, mask, length, count=1)
        before, shift = token_shift(x, mask, shift)
        (x_k,) = _mixed(x, before, [self["x_k"]])
        y = self["value"](relu2(self["key"](x_k)))
        return y, write_states(cache, [shift], length)


class LowRank(nn.Module):
    """`B(act(A(x)))` with `A` to few dimensions and `B` back to many, as the list `lora` that mlx-lm has.

    Args:
        dims: Width of the input.
        rank: Width between the matrices.
        outputs: Width of the output.
        activation: What is between them.
        bias: Whether `B` has a bias.
    """

    def __init__(self, dims: int, rank: int, outputs: int, activation: nn.Module, bias: bool = True) -> None:
        super().__init__()
        self.lora = [Linear(dims, rank, bias=False), activation, Linear(rank, outputs, bias=bias)]

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., dims) to (..., outputs)."""
        for part in self["lora"]:
            x = part(x)
        return x


class HeadLayerNorm(nn.Module):
    """Layer norm of each head by itself, with a scale and a shift for every dimension of every head.

    Args:
        heads: Number of heads.
        head_dim: Width of a head.
        eps: Added to the variance.
    """

    def __init__(self, heads: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = mx.ones((heads, head_dim)), mx.zeros((heads, head_dim))

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise `x` (..., heads, head_dim)."""
        return mx.fast.layer_norm(x, None, None, self.eps) * self["weight"] + self["bias"]


def _shares(dims: int, slope: float) -> mx.array:
    """The share of the token before in each channel of a new layer, (dims,)."""
    return 1 - (mx.arange(dims) / dims) ** slope


@partial(mx.compile, shapeless=True)
def _mixed(x: mx.array, before: mx.array, shares: list[mx.array]) -> list[mx.array]:
    """`x` and the inputs before, (B, L, D), mixed by each of some shares (D,)."""
    step = before - x
    return [x + step * share for share in shares]


def _unit(x: mx.array) -> mx.array:
    """`x` (..., W) divided by its length; the gradient is finite for zeros too."""
    return x * mx.rsqrt(mx.maximum((x * x).sum(-1, keepdims=True), _SHORTEST**2))
