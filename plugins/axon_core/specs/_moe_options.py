"""Mixtures of experts: options."""

from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Options
from axon_core.specs._heads import OFFSET_HELP, switch
from axon_core.specs.mlp import (
    ACTIVATION_HELP,
    LIMIT_HELP,
    SITU_HELP,
    Activation,
    SituOptions,
    check_gated,
)

__all__ = [
    "Corrected",
    "ExpertNormOptions",
    "GroupScoreName",
    "LatentNormOptions",
    "MoEOptions",
    "RouterNormOptions",
    "ScoreName",
    "SharedExpertMoEOptions",
    "SharedGate",
    "check_groups",
]

ScoreName = Literal["softmax", "topk_softmax", "sigmoid", "sqrt_softplus", "sparsemixer"]
SharedGate = bool | Literal["softmax"]
GroupScoreName = Literal["top2", "max"]
#: What the correction bias of experts is added to.
Corrected = Literal["scores", "logits"]


def _check_top_k(top_k: int, num_experts: int) -> None:
    if top_k > num_experts:
        raise ValueError(f"`top_k` ({top_k}) is larger than `num_experts` ({num_experts})")


def check_groups(num_experts: int, top_k: int, num_groups: int, top_k_groups: int, group_score: GroupScoreName) -> None:
    """Refuse groups that do not divide the experts or do not hold the chosen ones.

    Raises:
        ValueError: In plain words.
    """
    size, rest = divmod(num_experts, num_groups)
    if rest:
        raise ValueError(f"`num_experts` ({num_experts}) is not a multiple of `num_groups` ({num_groups})")
    if top_k_groups > num_groups:
        raise ValueError(f"`top_k_groups` ({top_k_groups}) is larger than `num_groups` ({num_groups})")
    if top_k_groups == num_groups:
        return
    if top_k > top_k_groups * size:
        raise ValueError(f"`top_k` ({top_k}) is larger than the {top_k_groups * size} experts of `top_k_groups`")
    if group_score == "top2" and size < 2:
        raise ValueError("`group_score: top2` needs groups of two experts or more")


class ExpertNormOptions(Options):
    """RMS norm of what the experts read."""

    eps: float = Field(1e-6, gt=0, description="Added to the mean square.")


class RouterNormOptions(ExpertNormOptions):
    """RMS norm of what the router reads."""

    scale: float = Field(1.0, gt=0, description="Constant factor besides the learned scale.")


RouterNorm = Annotated[
    RouterNormOptions | None, BeforeValidator(switch, json_schema_input_type=bool | RouterNormOptions | None)
]
ExpertNorm = Annotated[
    ExpertNormOptions | None, BeforeValidator(switch, json_schema_input_type=bool | ExpertNormOptions | None)
]


class LatentNormPartOptions(ExpertNormOptions):
    """One RMS norm in the width that routed experts work in, with a learned scale."""

    offset: float = Field(0.0, description=OFFSET_HELP)
    scale_first: bool = Field(False, description="Multiply by the scale before the division instead of after it.")


LatentNorm = Annotated[
    LatentNormPartOptions | None, BeforeValidator(switch, json_schema_input_type=bool | LatentNormPartOptions | None)
]


class LatentNormOptions(Options):
    """RMS norms in the width that routed experts work in, each with a learned scale: true, or {eps: …}."""

    read: LatentNorm = Field(default=None, description="Norm of what the experts read.")
    expert: LatentNorm = Field(default=None, description="Norm of what each expert gives.")
    sum: LatentNorm = Field(default=None, description="Norm of the sum of their outputs.")


class MoEOptions(Options):
    """Mixture of experts: a router sends each token to its best experts; shared experts see every token."""

    num_experts: int = Field(gt=0, description="Number of routed experts.")
    top_k: int = Field(2, gt=0, description="Experts that a token is sent to.")
    intermediate_size: int = Field(gt=0, description="Width of each routed expert.")
    score: ScoreName = Field(
        "softmax",
        description="Weights of the experts: softmax over all, topk_softmax over the chosen alone, sigmoid of each, "
        "sqrt_softplus (the square root of the softplus of each), or sparsemixer (Phi-3.5-MoE): for each choice the "
        "softmax over those left that are within `band`.",
    )
    norm_topk: bool = Field(True, description="Make the weights of the chosen experts sum to one.")
    norm_eps: float = Field(
        0.0, ge=0, description="Added to the sum that the weights of the chosen experts are divided by."
    )
    band: float = Field(
        0.02,
        gt=0,
        description="sparsemixer: how far below the best an expert's output may be, relative to its size, to count.",
    )
    input_scaled: bool = Field(
        False, description="The weights multiply what the experts read, instead of what they give (Llama 4)."
    )
    routed_scaling_factor: float = Field(
        1.0, gt=0, description="Factor of the weights of the chosen experts, after they were made to sum to one."
    )
    router_norm: RouterNorm = Field(
        None, description="RMS norm of what the router reads, with a learned scale: true, or {eps: …, scale: …}."
    )
    expert_norm: ExpertNorm = Field(
        None,
        description="RMS norm of what the experts read, with a learned scale: true, or {eps: …}. "
        "The router reads what comes in.",
    )
    identity_experts: int = Field(
        0,
        ge=0,
        description="Further outputs of the router, after those of the experts, for identity experts, which return "
        "their input (LongCat-Flash).",
    )
    per_expert_scale: bool = Field(False, description="Learn a factor of each routed expert's weight.")
    router_bias: bool = Field(False, description="Bias of the router.")
    router_softcap: float | None = Field(
        None, gt=0, description="Bound of the router's output before its score, `softcap * tanh(output / softcap)`."
    )
    correction_bias: bool = Field(
        False,
        description="A number per expert that counts in the choice but not in the weights; gradients do not move it.",
    )
    corrected: Corrected = Field(
        "scores",
        description="What `correction_bias` is added to: the scores, or the logits that they are computed from.",
    )
    hashed: bool = Field(
        False,
        description="Hash routing: a table assigns experts to every token of the vocabulary, whatever their scores, "
        "which remain their weights. It is not trained (DeepSeek-V4).",
    )
    num_groups: int = Field(1, gt=0, description="Groups of neighbouring experts, all of one size.")
    top_k_groups: int = Field(1, gt=0, description="Groups that a token's experts are chosen from.")
    group_score: GroupScoreName = Field(
        "top2", description="Score of a group: the sum of its best two experts (DeepSeek-V3), or its best one's (V2)."
    )
    activation: Activation = Field("silu", description=ACTIVATION_HELP)
    limit: float | None = Field(None, gt=0, description=LIMIT_HELP)
    situ: SituOptions | None = Field(None, description=SITU_HELP)
    gated: bool = Field(True, description="Experts have a gate; without it, two matrices.")
    bias: bool = Field(False, description="Bias of every expert's projections.")
    shared_bias: bool | None = Field(
        None, description="Bias of the shared expert and of the projections to `latent_size`; as `bias` unless given."
    )
    latent_size: int | None = Field(
        None,
        gt=0,
        description="Width that routed experts work in, between two projections of the hidden size; "
        "the hidden size itself, without projections, unless given.",
    )
    latent_norm: LatentNormOptions = Field(
        LatentNormOptions.model_construct(),
        description="RMS norms of that width: {read: …, expert: …, sum: …}; none unless given.",
    )
    num_shared_experts: int | None = Field(
        None,
        gt=0,
        description="Number of shared experts, which see every token, as one of that many times the width; none "
        "unless given.",
    )
    shared_intermediate_size: int | None = Field(
        None, gt=0, description="Width of the shared expert, where it is not a multiple of `intermediate_size`."
    )
    shared_sink: bool = Field(
        False,
        description="The router scores each of the `num_shared_experts` too: their scores count in the sum that "
        "weights are divided by, and each is multiplied by its weight (Inkling). `shared_intermediate_size` is then "
        "the width of each, that of the routed ones unless given.",
    )
    shared_gate: SharedGate = Field(
        False,
        description="Multiply the shared expert by a learned sigmoid gate; or, with softmax, the routed experts and "
        "the shared one by two learned shares that sum to one.",
    )
    gain: bool = Field(False, description="Learn a factor of the output.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_top_k(self.top_k, self.num_outputs)
        check_groups(self.num_outputs, self.top_k, self.num_groups, self.top_k_groups, self.group_score)
        check_gated(self.activation, self.gated, self.limit, self.situ)
        if self.latent_size is None and any(part is not None for _, part in self.latent_norm):
            raise ValueError("`latent_norm` has norms of `latent_size`: it needs that")
        if self.input_scaled and self.identity_experts:
            raise ValueError("`identity_experts` have no input of their own: leave out `input_scaled`")
        if self.hashed and (
            self.correction_bias or self.num_groups > 1 or self.score in ("topk_softmax", "sparsemixer")
        ):
            raise ValueError("with `hashed` no scores are compared: no `correction_bias`, no groups, no such `score`")
        if self.shared_sink and (not self.num_shared_experts or self.shared_gate or self.score == "sparsemixer"):
            raise ValueError("`shared_sink` needs `num_shared_experts`, and neither `shared_gate` nor `sparsemixer`")
        if self.num_shared_experts and self.shared_intermediate_size and not self.shared_sink:
            raise ValueError("give one of `num_shared_experts` and `shared_intermediate_size`: both say how wide it is")
        if self.shared_gate and not self.shared_size:
            raise ValueError(
                "`shared_gate` needs a shared expert: give `num_shared_experts` or `shared_intermediate_size`"
            )
        return self

    @property
    def num_outputs(self) -> int:
        """Outputs of the router that a token may be sent to: experts, and those that return their input."""
        return self.num_experts + self.identity_experts

    @property
    def scored_shared(self) -> int:
        """Shared experts that the router scores too, by outputs after the others."""
        return self.num_shared_experts or 0 if self.shared_sink else 0

    @property
    def scored_size(self) -> int:
        """Width of each of those."""
        return self.shared_intermediate_size or self.intermediate_size

    @property
    def side_bias(self) -> bool:
        """Whether the parts beside the routed experts have biases."""
        return self.bias if self.shared_bias is None else self.shared_bias

    @property
    def shared_size(self) -> int | None:
        """Width of the shared expert that the router does not score, None without one."""
        if self.shared_sink:
            return None
        if self.num_shared_experts:
            return self.num_shared_experts * self.intermediate_size
        return self.shared_intermediate_size


class SharedExpertMoEOptions(Options):
    """Softmax router, SwiGLU experts, and a shared expert with a sigmoid gate (as in Qwen2-MoE)."""

    num_experts: int = Field(8, gt=0, description="Number of routed experts.")
    top_k: int = Field(2, gt=0, description="Experts that a token is sent to.")
    intermediate_size: int = Field(gt=0, description="Width of each routed expert.")
    shared_intermediate_size: int | None = Field(
        None, gt=0, description="Width of the shared expert; `intermediate_size` unless given."
    )
    norm_topk: bool = Field(False, description="Make the weights of the chosen experts sum to one.")
    bias: bool = Field(False, description="Bias of every expert's projections.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_top_k(self.top_k, self.num_experts)
        return self

    def general(self) -> MoEOptions:
        """The same layer in the options of `moe`."""
        return _general(self)


@lru_cache
def _general(options: SharedExpertMoEOptions) -> MoEOptions:
    """Asked by every function of the record, in every layer; what is valid already needs no validator."""
    size = options.shared_intermediate_size or options.intermediate_size
    return MoEOptions.model_construct(**dict(options) | {"shared_intermediate_size": size}, shared_gate=True)
