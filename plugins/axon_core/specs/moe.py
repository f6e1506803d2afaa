"""Mixtures of experts: options and records."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._heads import OFFSET_HELP, switch
from axon_core.specs._saved import activation_saved, each, in_float32, norm_saved
from axon_core.specs._small import limited
from axon_core.specs.mlp import (
    ACTIVATION_HELP,
    LIMIT_HELP,
    SITU_HELP,
    Activation,
    SituOptions,
    bound_of,
    check_gated,
    mlp_params,
)

__all__ = [
    "SPECS",
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
    "moe_active",
    "moe_flops",
    "moe_params",
    "moe_saved",
    "moe_touched",
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
        LatentNormOptions(), description="RMS norms of that width: {read: …, expert: …, sum: …}; none unless given."
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
    shared_gate: SharedGate = Field(
        False,
        description="Multiply the shared expert by a learned sigmoid gate; or, with softmax, the routed experts and "
        "the shared one by two learned shares that sum to one.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> MoEOptions:
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
        if self.num_shared_experts and self.shared_intermediate_size:
            raise ValueError("give one of `num_shared_experts` and `shared_intermediate_size`: both say how wide it is")
        if self.shared_gate and not self.shared_size:
            raise ValueError(
                "`shared_gate` needs a shared expert: give `num_shared_experts` or `shared_intermediate_size`"
            )
        return self

    @property
    def num_outputs(self) -> int:
        """Outputs of the router: one for each expert, those that return their input included."""
        return self.num_experts + self.identity_experts

    @property
    def side_bias(self) -> bool:
        """Whether the parts beside the routed experts have biases."""
        return self.bias if self.shared_bias is None else self.shared_bias

    @property
    def shared_size(self) -> int | None:
        """Width of the shared expert, None without one."""
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
    def _consistent(self) -> SharedExpertMoEOptions:
        _check_top_k(self.top_k, self.num_experts)
        return self

    def general(self) -> MoEOptions:
        """The same layer in the options of `moe`."""
        return MoEOptions.model_validate(
            {
                **dict(self),
                "shared_intermediate_size": self.shared_intermediate_size or self.intermediate_size,
                "shared_gate": True,
            }
        )


def _expert_params(options: MoEOptions, hidden: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the routed experts: those of an `MLP`, one more axis in front."""
    names = {} if options.gated else {"up_proj": "fc1", "down_proj": "fc2"}
    shapes = {}
    single = mlp_params(
        options.latent_size or hidden, options.intermediate_size, gated=options.gated, bias=options.bias
    )
    for name, shape in single.items():
        layer, _, kind = name.partition(".")
        shapes[f"switch_mlp.{names.get(layer, layer)}.{kind}"] = (options.num_experts, *shape)
    return shapes


def _latent_params(options: MoEOptions, hidden: int, latent: int) -> dict[str, tuple[int, ...]]:
    matrices = {"fc1_latent_proj": (latent, hidden), "fc2_latent_proj": (hidden, latent)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    return shapes | ({f"{name}.bias": shape[:1] for name, shape in matrices.items()} if options.side_bias else {})


def moe_params(options: MoEOptions, hidden: int, vocabulary: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.moe.MoE`."""
    experts = options.num_outputs
    shapes: dict[str, tuple[int, ...]] = {"gate.weight": (experts, hidden), **_expert_params(options, hidden)}
    shapes |= {f"{name}.weight": (hidden,) for name in ("router_norm", "expert_norm") if getattr(options, name)}
    if options.per_expert_scale:
        shapes["per_expert_scale"] = (experts,)
    if options.router_bias:
        shapes["gate.bias"] = (experts,)
    if options.correction_bias:
        shapes["correction_bias"] = (experts,)
    if options.hashed:
        shapes["experts_of_token"] = (vocabulary, options.top_k)
    if options.latent_size:
        shapes |= _latent_params(options, hidden, options.latent_size)
        norms = (name for name, norm in options.latent_norm if norm is not None)
        shapes |= {f"latent_{name}_norm.weight": (options.latent_size,) for name in norms}
    if options.shared_size:
        shared = mlp_params(hidden, options.shared_size, gated=options.gated, bias=options.side_bias)
        shapes |= {f"shared_expert.{name}": shape for name, shape in shared.items()}
    if options.shared_gate:
        mixed = options.shared_gate == "softmax"
        shapes |= {"shared_expert_gate.weight": (2 if mixed else 1, hidden)} | (
            {"shared_expert_gate.bias": (2,)} if mixed else {}
        )
    return shapes


def moe_active(options: MoEOptions, hidden: int, vocabulary: int = 0) -> int:
    """Parameters that one token uses: all but the experts that it is not sent to."""
    routed = sum(prod(shape) for shape in _expert_params(options, hidden).values())
    total = sum(prod(shape) for shape in moe_params(options, hidden, vocabulary).values())
    return total - routed * max(0, options.num_experts - options.top_k) // options.num_experts


def moe_flops(options: MoEOptions, hidden: int, tokens: int) -> int:
    """The router, what surrounds the experts, and the experts that each token is sent to."""
    shapes = moe_params(options, hidden)
    expert = sum(prod(shape[1:]) for name, shape in shapes.items() if _routed(name) and name.endswith(".weight"))
    return product_flops(shapes, tokens) + 2 * tokens * options.top_k * expert


def moe_touched(options: MoEOptions, hidden: int, tokens: int) -> dict[str, int]:
    """Routed experts that are read: each token may choose others."""
    read = min(options.num_experts, tokens * options.top_k)
    found = {name: read for name in moe_params(options, hidden) if _routed(name)}
    return found | ({"experts_of_token": tokens} if options.hashed else {})


def moe_saved(options: MoEOptions, hidden: int, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The router in float32, and each expert that a token is sent to: its rows, what is inside, and its output.

    On the CPU, experts of less than float32 compute in float32 and keep copies of all their matrices too, which is not
    counted: a GPU needs none.
    """
    inner, sent = options.latent_size or hidden, tokens * options.top_k
    found = each(tokens, input=hidden, latent=2 * options.latent_size if options.latent_size else 0)
    cast = hidden if dtype != "float32" else 0
    found += in_float32(tokens, router_input=cast, router=2 * options.num_outputs)
    if (
        options.score == "sparsemixer"
    ):  # for each choice the softmax, what it is made of, and where the experts are near
        found += in_float32(tokens, mixed=11 * options.top_k * options.num_outputs // 2)
    found += norm_saved(tokens, hidden, name="router_norm") if options.router_norm else ()
    found += norm_saved(tokens, hidden, name="expert_norm") if options.expert_norm else ()
    for name, norm in options.latent_norm:
        rows = sent if name == "expert" else tokens
        found += norm_saved(rows, inner, name=f"latent_{name}_norm", offset=norm.offset) if norm else ()
    found += each(sent, rows=inner)
    found += () if options.input_scaled else in_float32(sent, outputs=inner)
    limit = bound_of(options.activation, options.limit, options.situ)
    found += activation_saved(sent, options.intermediate_size, options.activation, gated=options.gated, limit=limit)
    if options.shared_size:
        found += activation_saved(tokens, options.shared_size, options.activation, gated=options.gated, limit=limit)
        found += each(tokens, shared_output=hidden) if options.shared_gate else ()
        found += in_float32(tokens, routed_output=hidden) if options.shared_gate == "softmax" else ()
    return found


def _routed(name: str) -> bool:
    return name.startswith("switch_mlp.")


def _shrink(options: SharedExpertMoEOptions | MoEOptions, dims: Dims) -> dict[str, Any]:
    """Few and narrow experts; where not all are chosen, still not all."""
    limits = {"num_experts": 4, "top_k": 2, "intermediate_size": 32, "shared_intermediate_size": 32, "latent_size": 24}
    small = written(options) | limited(options, limits)
    if isinstance(options, MoEOptions) and options.num_groups > 1:
        all_groups = options.top_k_groups == options.num_groups
        small |= {"num_experts": 4, "num_groups": 2, "top_k_groups": 2 if all_groups else 1}
    if isinstance(options, MoEOptions) and options.identity_experts:
        small["identity_experts"] = 2
    return small


SPECS: Final = (
    ComponentSpec(
        name="moe",
        module_name="mlp",
        kind="layer",
        options=MoEOptions,
        module="axon_core.moe:MoE.from_options",
        summary="Mixture of experts: softmax, sigmoid or softplus router, top-k, optional shared expert.",
        source='Shazeer et al. 2017, "Outrageously Large Neural Networks" (arXiv:1701.06538)',
        params=lambda options, dims: moe_params(options, dims.hidden_size, dims.vocab_size),
        active=lambda options, dims: moe_active(options, dims.hidden_size, dims.vocab_size),
        flops=lambda options, dims, tokens, context: moe_flops(options, dims.hidden_size, tokens),
        saved=lambda options, dims, tokens, dtype: moe_saved(options, dims.hidden_size, tokens, dtype),
        touched=lambda options, dims, tokens: moe_touched(options, dims.hidden_size, tokens),
        float32=("correction_bias", "experts_of_token"),
        reads={"tokens": "hashed"},
        unquantized=("gate", "shared_expert_gate"),
        shrink=_shrink,
        examples=(
            {"num_experts": 4, "intermediate_size": 32},
            {"num_experts": 4, "intermediate_size": 32, "score": "topk_softmax", "router_bias": True, "bias": True},
            {
                "num_experts": 8,
                "top_k": 3,
                "intermediate_size": 32,
                "score": "sigmoid",
                "correction_bias": True,
                "routed_scaling_factor": 2.5,
                "num_shared_experts": 1,
            },
            {"num_experts": 4, "top_k": 1, "intermediate_size": 32, "activation": "relu2", "gated": False},
            {"num_experts": 4, "intermediate_size": 32, "shared_intermediate_size": 48, "shared_gate": True},
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "score": "sqrt_softplus",
                "correction_bias": True,
                "num_shared_experts": 1,
                "shared_gate": "softmax",
            },
            {
                "num_experts": 8,
                "intermediate_size": 32,
                "score": "sigmoid",
                "correction_bias": True,
                "num_groups": 4,
                "top_k_groups": 2,
                "norm_eps": 1e-20,
            },
            {
                "num_experts": 8,
                "intermediate_size": 32,
                "num_groups": 4,
                "top_k_groups": 3,
                "group_score": "max",
                "router_softcap": 3.0,
            },
            {"num_experts": 4, "intermediate_size": 32, "score": "sparsemixer", "norm_topk": False, "band": 0.5},
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "score": "sigmoid",
                "norm_topk": False,
                "input_scaled": True,
                "num_shared_experts": 1,
            },
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "score": "topk_softmax",
                "router_bias": True,
                "bias": True,
                "activation": "swiglu_oai",
            },
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "latent_size": 24,
                "activation": "relu2",
                "gated": False,
                "num_shared_experts": 1,
                "shared_bias": True,
            },
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "latent_size": 24,
                "latent_norm": {
                    "read": {"offset": 1.0},
                    "expert": {"scale_first": True, "offset": 1.0},
                    "sum": {"eps": 1e-5},
                },
                "activation": "situ",
                "situ": {"gate": 2.0, "up": 3.0},
                "num_shared_experts": 1,
            },
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "activation": "gelu_tanh",
                "router_norm": {"scale": 0.125},
                "expert_norm": True,
                "per_expert_scale": True,
            },
            {
                "num_experts": 4,
                "top_k": 2,
                "intermediate_size": 32,
                "score": "sqrt_softplus",
                "hashed": True,
            },
            {
                "num_experts": 4,
                "top_k": 3,
                "intermediate_size": 32,
                "identity_experts": 2,
                "norm_topk": False,
                "correction_bias": True,
            },
        ),
    ),
    ComponentSpec(
        name="shared_expert_moe",
        module_name="mlp",
        kind="layer",
        options=SharedExpertMoEOptions,
        module="axon_core.moe:SharedExpertMoE.from_options",
        summary="Mixture of SwiGLU experts with a gated shared expert.",
        source='Dai et al. 2024, "DeepSeekMoE" (arXiv:2401.06066)',
        params=lambda options, dims: moe_params(options.general(), dims.hidden_size),
        active=lambda options, dims: moe_active(options.general(), dims.hidden_size),
        flops=lambda options, dims, tokens, context: moe_flops(options.general(), dims.hidden_size, tokens),
        saved=lambda options, dims, tokens, dtype: moe_saved(options.general(), dims.hidden_size, tokens, dtype),
        touched=lambda options, dims, tokens: moe_touched(options.general(), dims.hidden_size, tokens),
        unquantized=("gate", "shared_expert_gate"),
        shrink=_shrink,
        examples=(
            {"num_experts": 4, "intermediate_size": 32},
            {"num_experts": 4, "top_k": 1, "intermediate_size": 32, "norm_topk": True, "bias": True},
        ),
    ),
)
