"""Mixtures of experts: a router, experts that see the tokens it sends them, and experts that see every token."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.experts import ExpertGLU, ExpertMLP
from axon_core.mlp import MLP
from axon_core.specs.mlp import ActivationName
from axon_core.specs.moe import MoEOptions, ScoreName

__all__ = ["MoE", "SharedExpertMoE"]


class MoE(nn.Module):
    """Mixture of experts (Shazeer 2017; sigmoid scores and the correction bias as in DeepSeek-V3).

    The router is computed in float32. Of two experts with the same score, the one with the lower index is chosen.

    Args:
        dim: Width of input and output.
        intermediate_dim: Width of each routed expert.
        num_experts: Number of routed experts.
        top_k: Experts that a token is sent to.
        score: Weights of the experts: `softmax` over all, `topk_softmax` over the chosen ones alone, `sigmoid` of each.
        norm_topk: Whether the weights of the chosen experts are made to sum to one.
        routed_scaling_factor: Factor of the routed experts' sum.
        router_bias: Whether the router has a bias.
        correction_bias: Whether a number per expert counts in the choice, but not in the weights. No gradient reaches
            it, so it is frozen; training sets it from the load of the experts.
        activation: Activation of every expert.
        gated: Whether experts have a gate.
        bias: Whether the experts' projections have biases.
        shared_intermediate_dim: Width of the expert that sees every token; None for none.
        shared_gate: Whether a learned sigmoid multiplies the shared expert.

    Raises:
        ValueError: If `top_k` is larger than `num_experts`, or a gate has no shared expert.
    """

    def __init__(
        self,
        dim: int,
        intermediate_dim: int,
        num_experts: int = 8,
        top_k: int = 2,
        *,
        score: ScoreName = "softmax",
        norm_topk: bool = True,
        routed_scaling_factor: float = 1.0,
        router_bias: bool = False,
        correction_bias: bool = False,
        activation: ActivationName = "silu",
        gated: bool = True,
        bias: bool = False,
        shared_intermediate_dim: int | None = None,
        shared_gate: bool = False,
    ) -> None:
        super().__init__()
        if top_k > num_experts:
            raise ValueError(f"top_k ({top_k}) is larger than num_experts ({num_experts})")
        if shared_gate and not shared_intermediate_dim:
            raise ValueError("shared_gate needs a shared expert: give shared_intermediate_dim")
        self.num_experts, self.top_k = num_experts, top_k
        self.score, self.norm_topk, self.routed_scaling_factor = score, norm_topk, routed_scaling_factor

        experts = ExpertGLU if gated else ExpertMLP
        self.gate = nn.Linear(dim, num_experts, bias=router_bias)
        self.switch_mlp = experts(dim, intermediate_dim, num_experts, activation, bias=bias)
        if shared_intermediate_dim:
            self.shared_expert = MLP(dim, shared_intermediate_dim, activation, gated, bias)
        if shared_gate:
            self.shared_expert_gate = nn.Linear(dim, 1, bias=False)
        if correction_bias:
            self.correction_bias = mx.zeros((num_experts,))
            self.freeze(recurse=False, keys="correction_bias")

    @classmethod
    def from_options(cls, options: MoEOptions, dims: Dims) -> MoE:
        """Build from `MoEOptions`; input and output are as wide as the hidden size."""
        return cls(
            dims.hidden_size,
            options.intermediate_size,
            options.num_experts,
            options.top_k,
            score=options.score,
            norm_topk=options.norm_topk,
            routed_scaling_factor=options.routed_scaling_factor,
            router_bias=options.router_bias,
            correction_bias=options.correction_bias,
            activation=options.activation,
            gated=options.gated,
            bias=options.bias,
            shared_intermediate_dim=options.shared_size,
            shared_gate=options.shared_gate,
        )

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Unfreeze everything but the correction bias."""
        super().unfreeze(*args, **kwargs)
        if "correction_bias" in self:
            self.freeze(recurse=False, keys="correction_bias")
        return self

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., D); the shape stays."""
        chosen, weights = self.route(x)
        routed = (self.switch_mlp(x, chosen) * weights[..., None]).sum(axis=-2)
        if "shared_expert" in self:
            shared = self.shared_expert(x)
            if "shared_expert_gate" in self:
                shared = mx.sigmoid(self.shared_expert_gate(x.astype(mx.float32))) * shared
            routed = routed + shared
        return routed.astype(x.dtype)

    def route(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Choose experts for `x` (..., D).

        Returns:
            The experts, (..., top_k) from the best to the worst, and their weights in float32, of the same shape.
        """
        logits = self.gate(x.astype(mx.float32))
        scores = mx.sigmoid(logits) if self.score == "sigmoid" else mx.softmax(logits, axis=-1)
        # Scores rise with the logits, but may round to the same number where those differ.
        ranking = scores + self.correction_bias if "correction_bias" in self else logits
        chosen = _best(ranking, self.top_k)
        if self.score == "topk_softmax":
            weights = mx.softmax(mx.take_along_axis(logits, chosen, axis=-1), axis=-1)
        else:
            weights = mx.take_along_axis(scores, chosen, axis=-1)
        if self.norm_topk:
            weights = weights / mx.maximum(weights.sum(axis=-1, keepdims=True), 1e-20)
        return chosen, weights * self.routed_scaling_factor


def _best(scores: mx.array, k: int) -> mx.array:
    """Indices of the `k` largest entries of the last axis; of equals, the lower index first.

    A sort, which is stable on every device; `mx.argpartition` keeps no order among equals.
    """
    return mx.stop_gradient(mx.argsort(-scores, axis=-1)[..., :k])


class SharedExpertMoE(MoE):
    """Softmax router over SwiGLU experts, and a shared expert behind a sigmoid gate that sees every token (Qwen2-MoE).

    The weights of the chosen experts are their softmax scores, which do not sum to one, unless `norm_topk`.

    Args:
        dim: Width of input and output.
        intermediate_dim: Width of each expert, the shared one included.
        num_experts: Number of routed experts.
        top_k: Experts that a token is sent to.
        bias: Whether the experts' projections have biases.
        norm_topk: Whether the weights of the chosen experts are made to sum to one.
        shared_intermediate_dim: Width of the shared expert; `intermediate_dim` unless given.
    """

    def __init__(
        self,
        dim: int,
        intermediate_dim: int,
        num_experts: int = 8,
        top_k: int = 2,
        bias: bool = False,
        *,
        norm_topk: bool = False,
        shared_intermediate_dim: int | None = None,
    ) -> None:
        super().__init__(
            dim,
            intermediate_dim,
            num_experts,
            top_k,
            norm_topk=norm_topk,
            bias=bias,
            shared_intermediate_dim=shared_intermediate_dim or intermediate_dim,
            shared_gate=True,
        )

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> SharedExpertMoE:
        """Build from `SharedExpertMoEOptions`; input and output are as wide as the hidden size."""
        return cls(
            dims.hidden_size,
            options.intermediate_size,
            options.num_experts,
            options.top_k,
            options.bias,
            norm_topk=options.norm_topk,
            shared_intermediate_dim=options.shared_intermediate_size,
        )
