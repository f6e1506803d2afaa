"""Mixtures of experts: a router, experts that see the tokens it sends them, and experts that see every token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.experts import ExpertGLU, ExpertMLP
from axon_core.few_tokens import experts_of_few, inherits, routed_of_few
from axon_core.kernels import Routing
from axon_core.linear import Linear
from axon_core.mlp import MLP
from axon_core.norms import RMSNorm
from axon_core.routing import best, one_by_one, within_groups
from axon_core.sharded import on_first
from axon_core.specs._moe_options import (
    Corrected,
    ExpertNormOptions,
    GroupScoreName,
    LatentNormOptions,
    MoEOptions,
    RouterNormOptions,
    ScoreName,
    SharedGate,
    check_groups,
)
from axon_core.specs.mlp import ActivationName, Limit, bound_of
from axon_core.specs.splits.experts import HELD, SHARED_ONCE

__all__ = ["MoE", "Publish", "SharedExpertMoE"]

#: Takes a name and a value that others may read; None where nobody does.
Publish: TypeAlias = Callable[[str, Any], None] | None

#: What is around a router and its experts, beside a shared one.
_MORE: Final = frozenset(
    ("router_norm", "expert_norm", "per_expert_scale", "correction_bias", "experts_of_token", "fc1_latent_proj", "gain")
)
_SOFTMAX: Final = ("softmax", "topk_softmax")
#: The methods that make the output.
_STEPS: Final = ("__call__", "_routed", "_summed", "_with_shared", "_scores", "_chosen", "_best")
#: Scores of all experts by the router's outputs.
_SCORES: Final[dict[ScoreName, Callable[[mx.array], mx.array]]] = {
    "softmax": partial(mx.softmax, axis=-1),
    "topk_softmax": partial(mx.softmax, axis=-1),
    "sparsemixer": partial(mx.softmax, axis=-1),
    "sigmoid": mx.sigmoid,
    "sqrt_softplus": lambda logits: mx.sqrt(nn.softplus(logits)),
}


class MoE(nn.Module):
    """Mixture of experts (Shazeer 2017; sigmoid scores and the correction bias as in DeepSeek-V3).

    `y = sum of w_e * expert_e(n(x))` over the chosen experts, with weights w from `scores(gate(r(x)))`; r and n are
    norms that Gemma 4 has (Hugging Face's `Gemma4TextRouter`), as it has a learned factor of each w_e.

    The router is computed in float32. Of two experts with the same score, the one with the lower index is chosen.

    Args:
        dim: Width of input and output.
        intermediate_dim: Width of each routed expert.
        num_experts: Number of routed experts.
        top_k: Experts that a token is sent to.
        score: Weights of the experts: `softmax` over all, `topk_softmax` over the chosen ones alone, `sigmoid` of each,
            `sqrt_softplus`, the root of the softplus of each, or `sparsemixer` (see `axon_core.routing.one_by_one`).
        norm_topk: Whether the weights of the chosen experts are made to sum to one.
        norm_eps: Added to the sum that they are divided by.
        band: Of `sparsemixer`: how far below the best, relative to its size, experts are that it is weighed against.
        input_scaled: Whether the weights multiply what the experts read, instead of what they give.
        routed_scaling_factor: Factor of the routed experts' sum.
        router_norm: RMS norm of what the router reads, times a constant; none unless given.
        expert_norm: RMS norm of what the experts read, shared ones too, while the router reads x; none unless given.
        identity_experts: Further outputs of the router, after those of the experts, that stand for what the experts
            read: a token is sent to fewer experts, and keeps a part of itself (LongCat-Flash).
        per_expert_scale: Whether the weight of each expert has a learned factor.
        router_bias: Whether the router has a bias.
        router_softcap: Bound of the router's output, `softcap * tanh(output / softcap)`; none unless given.
        correction_bias: Whether a number per expert counts in the choice, but not in the weights. No gradient reaches
            it, so it is frozen; training sets it from the load of the experts.
        corrected: What it is added to: `scores`, or the router's `logits` before them.
        hashed_tokens: Tokens of a table that says which experts each of them is sent to, whatever their scores
            (DeepSeek-V4); none unless given. It is not trained.
        num_groups: Number of groups of neighbouring experts.
        top_k_groups: Groups that the experts are chosen from: the best by `group_score` (see `axon_core.routing`).
        group_score: `top2` or `max`.
        activation: Activation of every expert.
        limit: Bound of gated experts' factors (see `axon_core.activations.gated`).
        gated: Whether experts have a gate.
        bias: Whether the experts' projections have biases.
        shared_bias: Whether the shared expert's, and those to the latent width, have; as `bias` unless given.
        latent_dim: Width that the routed experts work in, between two projections; `dim`, and none, unless given.
        latent_norm: RMS norms in that width, of what the experts read, of what each gives and of the sum of that;
            none unless given.
        shared_intermediate_dim: Width of the expert that sees every token; None for none.
        shared_gate: Whether a learned sigmoid multiplies the shared expert; or `softmax`: the routed experts and the
            shared one are multiplied by two learned shares, which have biases and sum to one (Klear).
        scored_shared: Number of shared experts that the router scores too, in place of the one shared expert, each
            `shared_intermediate_dim` wide: their weights are made to sum to one together with those of the chosen
            experts, so that they are a sink for what the router would rather send nowhere (Inkling).
        gain: Whether the output has a learned factor.
        held: Experts that this device has of a mixture that is split by experts; all unless given.
        shared_once: Whether every device has all of the shared expert, so that only the first one's counts.
        shard: Which part of a mixture that is split over devices it is; the whole unless given.

    Raises:
        ValueError: If `top_k` is larger than `num_experts`, groups do not fit, or a gate has no shared expert.
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
        norm_eps: float = 0.0,
        input_scaled: bool = False,
        band: float = 0.02,
        routed_scaling_factor: float = 1.0,
        router_norm: RouterNormOptions | None = None,
        expert_norm: ExpertNormOptions | None = None,
        identity_experts: int = 0,
        per_expert_scale: bool = False,
        router_bias: bool = False,
        router_softcap: float | None = None,
        correction_bias: bool = False,
        corrected: Corrected = "scores",
        hashed_tokens: int | None = None,
        num_groups: int = 1,
        top_k_groups: int = 1,
        group_score: GroupScoreName = "top2",
        activation: ActivationName = "silu",
        limit: Limit = None,
        gated: bool = True,
        bias: bool = False,
        shared_bias: bool | None = None,
        latent_dim: int | None = None,
        latent_norm: LatentNormOptions | None = None,
        shared_intermediate_dim: int | None = None,
        shared_gate: SharedGate = False,
        scored_shared: int = 0,
        gain: bool = False,
        held: int | None = None,
        shared_once: bool = False,
        shard: Shard = Shard(),
    ) -> None:
        super().__init__()
        self._shard, self.held = shard, held or num_experts
        self.adds_shared = shard.rank == 0 or not shared_once
        outputs = num_experts + identity_experts
        if top_k > outputs:
            raise ValueError(f"top_k ({top_k}) is larger than num_experts ({outputs})")
        if shared_gate and not shared_intermediate_dim:
            raise ValueError("shared_gate needs a shared expert: give shared_intermediate_dim")
        check_groups(outputs, top_k, num_groups, top_k_groups, group_score)
        self.num_experts, self.identity_experts, self.top_k = num_experts, identity_experts, top_k
        self.num_outputs, self.scored_shared = outputs, scored_shared
        self.score, self.norm_topk, self.norm_eps, self.input_scaled = score, norm_topk, norm_eps, input_scaled
        self.band, self.corrected = band, corrected
        self.routed_scaling_factor, self.router_softcap = routed_scaling_factor, router_softcap
        self.num_groups, self.top_k_groups, self.group_score = num_groups, top_k_groups, group_score

        self.router_scale = 1.0 if router_norm is None else router_norm.scale
        if router_norm is not None:
            self.router_norm = RMSNorm(dim, router_norm.eps)
        if expert_norm is not None:
            self.expert_norm = RMSNorm(dim, expert_norm.eps)
        if per_expert_scale:
            self.per_expert_scale = mx.ones((outputs,))
        self.gate = Linear(dim, outputs + scored_shared, bias=router_bias)
        experts = partial(ExpertGLU, limit=limit) if gated else ExpertMLP
        self.switch_mlp = experts(latent_dim or dim, intermediate_dim, self.held, activation, bias=bias)
        shared_bias = bias if shared_bias is None else shared_bias
        if latent_dim:
            self._add_latent(dim, latent_dim, shared_bias, latent_norm)
        if scored_shared:
            width = shared_intermediate_dim or intermediate_dim
            self.shared_experts = experts(dim, width, scored_shared, activation, bias=shared_bias)
        elif shared_intermediate_dim:
            self.shared_expert = MLP(dim, shared_intermediate_dim, activation, gated, shared_bias, limit)
        if shared_gate:
            mixed = shared_gate == "softmax"
            self.shared_expert_gate = Linear(dim, 2 if mixed else 1, bias=mixed)
        if gain:
            self.gain = mx.ones((1,))
        self._add_choices(outputs, correction_bias, hashed_tokens)

    def _add_choices(self, outputs: int, correction_bias: bool, hashed_tokens: int | None) -> None:
        """What decides where tokens go besides the router; it is not trained."""
        if correction_bias:
            self.correction_bias = mx.zeros((outputs,))
        if hashed_tokens:
            turns = mx.arange(hashed_tokens)[:, None] + mx.arange(self.top_k)
            self.experts_of_token = (turns % outputs).astype(mx.float32)
        self._freeze_choices()

    def _freeze_choices(self) -> None:
        """What decides where tokens go, and what no gradient reaches."""
        self.freeze(recurse=False, keys=[name for name in ("correction_bias", "experts_of_token") if name in self])

    def _add_latent(self, dim: int, width: int, bias: bool, norms: LatentNormOptions | None) -> None:
        """What takes tokens to the width that the routed experts work in, and back."""
        self.fc1_latent_proj = Linear(dim, width, bias=bias)
        self.fc2_latent_proj = Linear(width, dim, bias=bias)
        for name, norm in norms or ():
            if norm is not None:
                self[f"latent_{name}_norm"] = RMSNorm(width, norm.eps, offset=norm.offset, scale_first=norm.scale_first)

    @classmethod
    def from_options(cls, options: MoEOptions, dims: Dims) -> MoE:
        """Build from `MoEOptions`; input and output are as wide as the hidden size."""
        given = dict(options)
        sizes = [given.pop(name) for name in ("intermediate_size", "num_experts", "top_k")]
        for name in ("num_shared_experts", "shared_intermediate_size", "shared_sink"):
            given.pop(name)
        given["limit"] = bound_of(options.activation, options.limit, given.pop("situ"))
        latent = given.pop("latent_size")
        given["hashed_tokens"] = dims.vocab_size if given.pop("hashed") else None
        shared = options.scored_size if options.scored_shared else options.shared_size
        given |= {"latent_dim": latent, "shared_intermediate_dim": shared, "scored_shared": options.scored_shared}
        given |= _placed(dims)
        return cls(dims.hidden_size, *sizes, **given)

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Unfreeze everything but the correction bias and the table of tokens."""
        super().unfreeze(*args, **kwargs)
        self._freeze_choices()
        return self

    def __call__(
        self,
        x: mx.array,
        tokens: mx.array | None = None,
        publish: Publish = None,
    ) -> mx.array:
        """Transform `x` (..., D); the shape stays.

        Args:
            x: (..., D).
            tokens: (...), which a table of tokens asks for.
            publish: Called with `"routing"` and the scores of all experts, (..., E) in float32, and the chosen ones,
                (..., top_k): what balances their load in training.
        """
        if publish is None and (y := routed_of_few(self, x)) is not None:
            return y
        logits, scores = self._scores(x)
        chosen, weights, shares = self._chosen(logits, scores, tokens)
        if publish is not None:
            publish("routing", (scores[..., : self.num_outputs], chosen))
        if "expert_norm" in self:
            x = self["expert_norm"](x)
        kept = None
        if self.identity_experts:
            kept = mx.where(chosen >= self.num_experts, weights, 0.0)
            # Sent to the first expert with no weight: what is computed stays the same for every token.
            weights, chosen = weights - kept, mx.where(chosen >= self.num_experts, 0, chosen)
        here = None
        if self.held < self.num_experts:
            here = chosen // self.held == self._shard.rank
            weights, chosen = mx.where(here, weights, 0.0), mx.where(here, chosen % self.held, 0)
        routed = self._routed(x, chosen, weights, here)
        if kept is not None and self._shard.rank == 0:
            routed = routed + kept.sum(axis=-1, keepdims=True) * x
        if "shared_expert" in self:
            routed = self._with_shared(x, routed)
        if self.scored_shared and self.adds_shared:
            every = mx.broadcast_to(mx.arange(self.scored_shared), shares.shape)
            routed = routed + (self.shared_experts(x, every) * shares[..., None]).sum(axis=-2)
        if "gain" in self:
            routed = routed * self.gain
        return routed.astype(x.dtype)

    def residual(self, norm: nn.Module | None, x: mx.array, **arguments: Any) -> mx.array | None:
        """`x` and what it makes of `norm(x)`, in one operation; None where it is to be computed in steps."""
        return routed_of_few(self, x, norm, adds=True) if arguments.get("publish") is None else None

    def routing(self) -> Routing | None:
        """How the experts' weights are made, where it is a softmax of the router and nothing else is done, now."""
        bare = self.router_softcap is None and not self.input_scaled and _MORE.isdisjoint(self.keys())
        whole = not self.identity_experts and not self.scored_shared and self.held == self.num_experts
        if not bare or not whole or self.top_k_groups < self.num_groups or self.score not in _SOFTMAX:
            return None
        if not self.adds_shared or not inherits(self, MoE, *_STEPS):
            return None
        of_chosen = self.score == "topk_softmax"
        return Routing(self.top_k, of_chosen, self.norm_topk, self.norm_eps, self.routed_scaling_factor)

    def _routed(self, x: mx.array, chosen: mx.array, weights: mx.array, here: mx.array | None) -> mx.array:
        """The sum of what the chosen experts give, by their weights; of those that are here, (..., top_k)."""
        inner = self.fc1_latent_proj(x) if "fc1_latent_proj" in self else x
        if "latent_read_norm" in self:
            inner = self["latent_read_norm"](inner)
        alone = not self.input_scaled and "latent_expert_norm" not in self and inherits(self, MoE, "_summed")
        routed = experts_of_few(self["switch_mlp"], inner, chosen, weights) if alone else None
        if routed is None:
            routed = self._summed(inner, chosen, weights, here)
        if "latent_sum_norm" in self:
            # Of what all devices have, the first one adds it.
            routed = on_first(self["latent_sum_norm"](self._shard.sum(routed)), self._shard)
        return self.fc2_latent_proj(routed.astype(x.dtype)) if "fc2_latent_proj" in self else routed

    def _summed(self, inner: mx.array, chosen: mx.array, weights: mx.array, here: mx.array | None) -> mx.array:
        """The sum of what experts make of `inner`, before any further norm and projection."""
        if self.input_scaled:  # a row of its own for each expert that a token is sent to
            rows = (inner[..., None, :] * weights[..., None]).astype(inner.dtype)
            routed = self["switch_mlp"](rows, chosen[..., None])[..., 0, :]
            routed = routed if here is None else mx.where(here[..., None], routed, mx.zeros_like(routed))
        else:
            routed = self["switch_mlp"](inner, chosen)
        if "latent_expert_norm" in self:
            routed = self["latent_expert_norm"](routed)
        return (routed if self.input_scaled else routed * weights[..., None]).sum(axis=-2)

    def _with_shared(self, x: mx.array, routed: mx.array) -> mx.array:
        """The routed experts' sum and the shared expert, by the gate if there is one."""
        shared = self["shared_expert"](x) if self.adds_shared else mx.zeros_like(x)
        if "shared_expert_gate" not in self:
            return routed + shared
        gate = self["shared_expert_gate"](x.astype(mx.float32))
        if gate.shape[-1] == 1:
            return routed + mx.sigmoid(gate) * shared
        shares = mx.softmax(gate, axis=-1)
        return shares[..., :1] * routed + shares[..., 1:] * shared

    def route(self, x: mx.array, tokens: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Choose experts for `x` (..., D) of `tokens` (...).

        Returns:
            The experts, (..., top_k) from the best to the worst, and their weights in float32, of the same shape. From
            `num_experts` on they return their input.
        """
        return self._chosen(*self._scores(x), tokens)[:2]

    def _scores(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """The router's outputs in float32, one for each expert, and for shared ones that it scores; and all scores."""
        x = x.astype(mx.float32)
        if "router_norm" in self:
            x = self["router_norm"](x) * self.router_scale
        logits = self["gate"](x)
        if self.router_softcap is not None:
            logits = self.router_softcap * mx.tanh(logits / self.router_softcap)
        return logits, _SCORES[self.score](logits)

    def _chosen(
        self, logits: mx.array, scores: mx.array, tokens: mx.array | None
    ) -> tuple[mx.array, mx.array, mx.array]:
        """The best experts and their weights, see `route`, and those of the shared experts, (..., scored_shared)."""
        if "experts_of_token" in self:
            # MLX reads beyond the end of the experts, whatever a file says.
            chosen = mx.clip(self.experts_of_token[tokens].astype(mx.int32), 0, self.num_outputs - 1)
        else:
            chosen = self._best(logits[..., : self.num_outputs], scores[..., : self.num_outputs])
        if self.score == "sparsemixer":
            weights = one_by_one(logits, chosen, self.band)
        else:
            of = logits if self.score == "topk_softmax" else scores
            weights = mx.take_along_axis(of, chosen, axis=-1)
            if self.scored_shared:
                weights = mx.concatenate([weights, of[..., self.num_outputs :]], axis=-1)
        if self.score == "topk_softmax":
            weights = mx.softmax(weights, axis=-1)
        if self.norm_topk:
            weights = weights / mx.maximum(weights.sum(axis=-1, keepdims=True) + self.norm_eps, 1e-20)
        weights = weights * self.routed_scaling_factor
        weights, shares = weights[..., : self.top_k], weights[..., self.top_k :]
        if "per_expert_scale" in self:
            weights = weights * self.per_expert_scale[chosen]
        return chosen, weights, shares

    def _best(self, logits: mx.array, scores: mx.array) -> mx.array:
        """The experts with the best scores, (..., top_k)."""
        # Scores rise with the logits, but may round to the same number where those differ.
        ranking = logits
        if "correction_bias" in self:
            ranking = (logits if self.corrected == "logits" else scores) + self["correction_bias"]
        if self.top_k_groups < self.num_groups:
            ranking = ranking if "correction_bias" in self else scores
            ranking = within_groups(ranking, self.num_groups, self.top_k_groups, self.group_score)
        return best(ranking, self.top_k)


class SharedExpertMoE(MoE):
    """Softmax router over SwiGLU experts, and a shared expert with a sigmoid gate that sees every token (Qwen2-MoE).

    The weights of the chosen experts are their softmax scores, which do not sum to one, unless `norm_topk`.

    Args:
        dim: Width of input and output.
        intermediate_dim: Width of each expert, the shared one included.
        num_experts: Number of routed experts.
        top_k: Experts that a token is sent to.
        bias: Whether the experts' projections have biases.
        norm_topk: Whether the weights of the chosen experts are made to sum to one.
        shared_intermediate_dim: Width of the shared expert; `intermediate_dim` unless given.
        **placed: Which part of it a device has, as for `MoE`.
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
        **placed: Any,
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
            **placed,
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
            **_placed(dims),
        )


def _placed(dims: Dims) -> dict[str, Any]:
    """Which part of a mixture a device has."""
    return {"held": dims.get(HELD), "shared_once": dims.get(SHARED_ONCE, False), "shard": dims.shard}
