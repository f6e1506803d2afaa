"""Mixtures of experts: records, and the figures that they state."""

from __future__ import annotations

from math import prod
from typing import Any, Final

from axon_compose.registry import Array, ComponentSpec, Dims, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import MOE, SHARED_MOE
from axon_core.specs._moe_options import MoEOptions, SharedExpertMoEOptions
from axon_core.specs._saved import activation_saved, each, in_float32, norm_saved
from axon_core.specs._small import limited
from axon_core.specs.mlp import bound_of, mlp_params
from axon_core.specs.splits.experts import HELD, moe_split, shared_expert_split
from axon_core.specs.transfers.mixtures import moe_transfers, shared_expert_transfers

__all__ = [
    "SPECS",
    "moe_active",
    "moe_flops",
    "moe_params",
    "moe_saved",
    "moe_touched",
]


def _expert_params(options: MoEOptions, hidden: int, held: int | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the routed experts, or of those that a device holds: of an `MLP`, one more axis in front."""
    names = {} if options.gated else {"up_proj": "fc1", "down_proj": "fc2"}
    shapes = {}
    single = mlp_params(
        options.latent_size or hidden, options.intermediate_size, gated=options.gated, bias=options.bias
    )
    for name, shape in single.items():
        layer, _, kind = name.partition(".")
        shapes[f"switch_mlp.{names.get(layer, layer)}.{kind}"] = (held or options.num_experts, *shape)
    return shapes


def _scored_params(options: MoEOptions, hidden: int) -> dict[str, tuple[int, ...]]:
    """Of the shared experts that the router scores; none without."""
    if not options.scored_shared:
        return {}
    names = {} if options.gated else {"up_proj": "fc1", "down_proj": "fc2"}
    single = mlp_params(hidden, options.scored_size, gated=options.gated, bias=options.side_bias)
    parts = ((name.partition("."), shape) for name, shape in single.items())
    return {
        f"shared_experts.{names.get(layer, layer)}.{kind}": (options.scored_shared, *shape)
        for (layer, _, kind), shape in parts
    }


def _latent_params(options: MoEOptions, hidden: int, latent: int) -> dict[str, tuple[int, ...]]:
    matrices = {"fc1_latent_proj": (latent, hidden), "fc2_latent_proj": (hidden, latent)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    return shapes | ({f"{name}.bias": shape[:1] for name, shape in matrices.items()} if options.side_bias else {})


def moe_params(
    options: MoEOptions, hidden: int, vocabulary: int = 0, held: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.moe.MoE`."""
    experts, outputs = options.num_outputs, options.num_outputs + options.scored_shared
    shapes: dict[str, tuple[int, ...]] = {"gate.weight": (outputs, hidden), **_expert_params(options, hidden, held)}
    shapes |= {f"{name}.weight": (hidden,) for name in ("router_norm", "expert_norm") if getattr(options, name)}
    if options.per_expert_scale:
        shapes["per_expert_scale"] = (experts,)
    if options.router_bias:
        shapes["gate.bias"] = (outputs,)
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
    shapes |= _scored_params(options, hidden)
    if options.shared_gate:
        mixed = options.shared_gate == "softmax"
        shapes |= {"shared_expert_gate.weight": (2 if mixed else 1, hidden)} | (
            {"shared_expert_gate.bias": (2,)} if mixed else {}
        )
    return shapes | ({"gain": (1,)} if options.gain else {})


def moe_active(options: MoEOptions, hidden: int, vocabulary: int = 0, held: int | None = None) -> int:
    """Parameters that one token uses: all but the experts that it is not sent to."""
    routed = sum(prod(shape) for shape in _expert_params(options, hidden, held).values())
    total = sum(prod(shape) for shape in moe_params(options, hidden, vocabulary, held).values())
    return total - routed * max(0, options.num_experts - options.top_k) // options.num_experts


def moe_flops(options: MoEOptions, hidden: int, tokens: int) -> int:
    """The router, what surrounds the experts, and the experts that each token is sent to."""
    shapes = moe_params(options, hidden)
    expert = sum(prod(shape[1:]) for name, shape in shapes.items() if _routed(name) and name.endswith(".weight"))
    scored = _scored_params(options, hidden)
    shared = sum(prod(shape) for name, shape in scored.items() if name.endswith(".weight"))
    return product_flops(shapes, tokens) + 2 * tokens * (options.top_k * expert + shared)


def moe_touched(options: MoEOptions, hidden: int, tokens: int, held: int | None = None) -> dict[str, int]:
    """Routed experts that are read: each token may choose others."""
    read = min(held or options.num_experts, tokens * options.top_k)
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
    found += in_float32(tokens, router_input=cast, router=2 * (options.num_outputs + options.scored_shared))
    if options.score == "sparsemixer":  # for each choice the softmax, what it is made of, and which experts are near
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
    if options.scored_shared:
        rows = tokens * options.scored_shared
        found += each(rows, shared_rows=hidden) + in_float32(rows, shared_outputs=hidden)
        found += activation_saved(rows, options.scored_size, options.activation, gated=options.gated, limit=limit)
    if options.gain:
        found += in_float32(tokens, plain_output=hidden)
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
        learning=MOE,
        summary="Mixture of experts: softmax, sigmoid or softplus router, top-k, optional shared expert.",
        source='Shazeer et al. 2017, "Outrageously Large Neural Networks" (arXiv:1701.06538)',
        params=lambda options, dims: moe_params(options, dims.hidden_size, dims.vocab_size, dims.get(HELD)),
        active=lambda options, dims: moe_active(options, dims.hidden_size, dims.vocab_size, dims.get(HELD)),
        flops=lambda options, dims, tokens, context: moe_flops(options, dims.hidden_size, tokens),
        saved=lambda options, dims, tokens, dtype: moe_saved(options, dims.hidden_size, tokens, dtype),
        touched=lambda options, dims, tokens: moe_touched(options, dims.hidden_size, tokens, dims.get(HELD)),
        float32=("correction_bias", "experts_of_token", "gain"),
        reads={"tokens": "hashed"},
        unquantized=("gate", "shared_expert_gate"),
        transfers=moe_transfers(moe_params),
        split=moe_split,
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
                "score": "sigmoid",
                "correction_bias": True,
                "routed_scaling_factor": 1.5,
                "num_shared_experts": 2,
                "shared_sink": True,
                "gain": True,
            },
            {
                "num_experts": 4,
                "intermediate_size": 32,
                "score": "topk_softmax",
                "norm_topk": False,
                "activation": "relu2",
                "gated": False,
                "bias": True,
                "num_shared_experts": 1,
                "shared_intermediate_size": 48,
                "shared_sink": True,
            },
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
        learning=SHARED_MOE,
        summary="Mixture of SwiGLU experts with a gated shared expert.",
        source='Dai et al. 2024, "DeepSeekMoE" (arXiv:2401.06066)',
        params=lambda options, dims: moe_params(options.general(), dims.hidden_size, 0, dims.get(HELD)),
        active=lambda options, dims: moe_active(options.general(), dims.hidden_size, 0, dims.get(HELD)),
        flops=lambda options, dims, tokens, context: moe_flops(options.general(), dims.hidden_size, tokens),
        saved=lambda options, dims, tokens, dtype: moe_saved(options.general(), dims.hidden_size, tokens, dtype),
        touched=lambda options, dims, tokens: moe_touched(options.general(), dims.hidden_size, tokens, dims.get(HELD)),
        unquantized=("gate", "shared_expert_gate"),
        transfers=shared_expert_transfers(moe_params),
        split=shared_expert_split,
        shrink=_shrink,
        examples=(
            {"num_experts": 4, "intermediate_size": 32},
            {"num_experts": 4, "top_k": 1, "intermediate_size": 32, "norm_topk": True, "bias": True},
        ),
    ),
)
