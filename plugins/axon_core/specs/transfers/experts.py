"""Experts out of a dense layer, out of other experts, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import log, sqrt
from typing import Any, Final

from axon_compose.registry import Case, Piece, Transfer, TransferExample
from axon_core.specs.transfers._common import width_fault

__all__ = [
    "DENSE",
    "MOE",
    "Shards",
    "expert_names",
    "free_router",
    "general",
    "moe_transfers",
    "normalised",
    "shards",
    "shared_expert_transfers",
    "weight_sum",
]

MOE: Final = ("core/moe", "core/shared_expert_moe")
Params = Callable[[Any, int], Mapping[str, tuple[int, ...]]]
_MAKE: Final = "axon_core.transfers.experts:"
_UPCYCLING: Final = 'Komatsuzaki et al. 2022, "Sparse Upcycling" (arXiv:2212.05055)'
#: What is added to a sum of weights and is lost in its rounding.
_NOTHING: Final = 1e-9
#: What an expert and a dense layer must agree on.
_INNER: Final = ("activation", "limit", "situ", "gated", "bias")


@dataclass(frozen=True, slots=True)
class Shards:
    """How a dense layer is cut: each expert is one of `parts` equal cuts of it, and there are `copies` of each.

    Attributes:
        parts: Cuts of the inner width; 1 where each expert is the whole layer.
        copies: Experts for each cut.
    """

    parts: int
    copies: int


def general(options: Any) -> Any:
    """The options of `moe`, out of those of either type."""
    return options.general() if hasattr(options, "general") else options


def normalised(options: Any) -> bool:
    """Whether the weights of the chosen experts have the same sum whatever the router says."""
    return (options.norm_topk or options.score == "topk_softmax") and options.norm_eps <= _NOTHING


def weight_sum(options: Any) -> float:
    """The sum of the chosen experts' weights, where the router says the same of all of them."""
    experts, chosen = options.num_outputs, options.top_k
    if normalised(options):
        total = 1.0
    elif options.score == "sparsemixer":
        total = sum(1 / (experts - taken) for taken in range(chosen))
    else:
        each = {"softmax": 1 / experts, "topk_softmax": 1 / chosen, "sigmoid": 0.5, "sqrt_softplus": sqrt(log(2))}
        total = chosen * each[options.score]
        total = total / (total + options.norm_eps) if options.norm_topk else total
    return total * options.routed_scaling_factor


def shards(options: Any, width: int) -> Shards | str:
    """How a dense layer of this inner width is cut into experts, or why it cannot be."""
    parts, rest = divmod(width, options.intermediate_size)
    if rest or not parts:
        return f"experts of {options.intermediate_size} are no equal parts of an `intermediate_size` of {width}"
    copies, rest = divmod(options.num_experts, parts)
    if rest or not copies:
        return f"{options.num_experts} experts are no whole number of copies of the {parts} parts of the layer"
    return Shards(parts, copies)


def expert_names(options: Any) -> dict[str, str]:
    """Parameters of the routed experts, and the same of a dense layer."""
    inner, outer = ("up_proj", "down_proj") if options.gated else ("fc1", "fc2")
    names = {f"switch_mlp.{inner}": "up_proj", f"switch_mlp.{outer}": "down_proj"}
    if options.gated:
        names = {"switch_mlp.gate_proj": "gate_proj", **names}
    kinds = ("weight", "bias") if options.bias else ("weight",)
    return {f"{new}.{kind}": f"{old}.{kind}" for new, old in names.items() for kind in kinds}


def _unlike(new: Any, old: Any) -> str | None:
    """Why experts and a dense layer do not compute alike."""
    for name in _INNER:
        if getattr(new, name) != getattr(old, name):
            return f"`{name}` differs from that of the source"
    for dense in (new, old):
        if getattr(dense, "sparsity", None) is not None:
            return "experts have no `sparsity`"
    return None


def _routable(options: Any) -> str | None:
    """Why experts do not read and add what a dense layer does."""
    for name in ("latent_size", "expert_norm", "identity_experts"):
        if getattr(options, name):
            return f"with `{name}` experts do not read or give what a dense layer does"
    if options.input_scaled and (options.top_k > 1 or abs(weight_sum(options) - 1) > 1e-9 or not normalised(options)):
        return "`input_scaled` changes what experts read: it needs `top_k: 1` and weights that sum to one"
    return None


def _router(options: Any) -> dict[str, Piece]:
    """What the router has besides its matrix, at values that change nothing."""
    found = {}
    if options.router_bias:
        found["gate.bias"] = Piece((), "zero")
    if options.correction_bias:
        found["correction_bias"] = Piece((), "zero")
    if options.per_expert_scale:
        found["per_expert_scale"] = Piece((), "one")
    return found


def _from_dense(case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), case.source_options
    if fault := width_fault(case) or _unlike(new, old) or _routable(new):
        return fault
    if new.shared_size:
        return "there is a shared expert, which sees every token: write `init: shared`"
    cut = shards(new, old.intermediate_size)
    if isinstance(cut, str):
        return cut
    if new.input_scaled and cut.parts > 1:
        return "`input_scaled` changes what experts read: parts of the layer would not add up to it"
    whole = _together(new, cut)
    what = f"part i mod {cut.parts} of the layer, for expert i" if cut.parts > 1 else "the layer, for each expert"
    pieces = {}
    for name, source in expert_names(new).items():
        down = ".down_proj." in name or ".fc2." in name
        rule = f"{what}, times what the weights take away" if down else what
        pieces[name] = Piece((source,), rule, "exact" if whole else "near")
    if not free_router(new):
        pieces["gate.weight"] = Piece((), "zero: every expert has the same weight")
    elif cut.parts > 1:
        pieces["gate.weight"] = Piece((), "the same row for all parts of one copy, so that they are chosen together")
    return pieces | _router(new)


def free_router(options: Any) -> bool:
    """Whether experts that are all the same may be chosen by any router."""
    return normalised(options) and not options.hashed


def _together(options: Any, cut: Shards) -> bool:
    """Whether every part of the layer is chosen as often as any other, with the same weights."""
    if cut.parts == 1:
        return True
    in_groups = options.top_k_groups < options.num_groups
    size = options.num_experts // options.num_groups if in_groups else options.num_experts
    return options.top_k % cut.parts == 0 and size % cut.parts == 0 and options.score != "sparsemixer"


def _shared(case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), case.source_options
    if fault := width_fault(case) or _unlike(new, old):
        return fault
    if new.shared_size != old.intermediate_size:
        return f"the shared expert has a width of {new.shared_size or 0}, the source {old.intermediate_size}"
    if new.side_bias != old.bias:
        return "`shared_bias` differs from the `bias` of the source"
    if new.expert_norm:
        return "with `expert_norm` the shared expert does not read what a dense layer does"
    names = ("gate_proj", "up_proj", "down_proj") if new.gated else ("up_proj", "down_proj")
    kinds = ("weight", "bias") if old.bias else ("weight",)
    pieces = {
        f"shared_expert.{name}.{kind}": Piece(
            (f"{name}.{kind}",),
            "the layer, times 2 for its gate" if new.shared_gate and name == "down_proj" else "the layer",
        )
        for name in names
        for kind in kinds
    }
    added = "fc2_latent_proj" if new.latent_size else "switch_mlp.down_proj" if new.gated else "switch_mlp.fc2"
    pieces[f"{added}.weight"] = Piece((), "zero: routed experts add nothing yet")
    if new.side_bias if new.latent_size else new.bias:
        pieces[f"{added}.bias"] = Piece((), "zero")
    if new.shared_gate:
        pieces["shared_expert_gate.weight"] = Piece((), "zero: half open")
        if new.shared_gate == "softmax":
            pieces["shared_expert_gate.bias"] = Piece((), "zero")
    if new.identity_experts:
        return "with `identity_experts` tokens keep a part of themselves, which a dense layer does not give"
    return pieces


def _alike_experts(case: Case) -> str | None:
    """Why experts cannot become other experts."""
    new, old = general(case.options), general(case.source_options)
    free = ("num_experts", "top_k", "correction_bias", "router_bias", "num_groups", "top_k_groups", "group_score")
    for name in type(new).model_fields:
        if name not in free and getattr(new, name) != getattr(old, name):
            return f"`{name}` differs from that of the source"
    if new.identity_experts or new.hashed:
        return "experts that return their input, or that a table assigns, stay as many as they are"
    return width_fault(case)


def _kept_names(case: Case, params: Params) -> dict[str, bool]:
    """Parameters of a mixture that source and new layer have, and whether they have a row for each expert."""
    new, old = general(case.options), general(case.source_options)
    known = params(old, case.source_dims.hidden_size)
    per_expert = ("switch_mlp.", "gate.", "per_expert_scale", "correction_bias")
    return {name: name.startswith(per_expert) for name in params(new, case.dims.hidden_size) if name in known}


def _pruned(params: Params, case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), general(case.source_options)
    if fault := _alike_experts(case):
        return fault
    if new.num_experts >= old.num_experts:
        return f"{new.num_experts} experts are not fewer than the source's {old.num_experts}"
    kept = f"the {new.num_experts} experts that are chosen most, in their order"
    return {
        name: Piece((name,), kept if by_expert else "the same", "near" if by_expert else "exact")
        for name, by_expert in _kept_names(case, params).items()
    }


def _merged(params: Params, case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), general(case.source_options)
    if fault := _alike_experts(case):
        return fault
    times, rest = divmod(old.num_experts, new.num_experts)
    if rest or times < 2:
        return f"{old.num_experts} experts cannot be merged into {new.num_experts} in equal groups"
    return {
        name: Piece(
            (name,),
            f"means of {times} neighbouring experts" if by_expert else "the same",
            "near" if by_expert else "exact",
        )
        for name, by_expert in _kept_names(case, params).items()
    }


def _repeated(params: Params, case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), general(case.source_options)
    if fault := _alike_experts(case):
        return fault
    times, rest = divmod(new.num_experts, old.num_experts)
    if rest or times < 2:
        return f"{new.num_experts} experts are no multiple of the source's {old.num_experts}"
    if new.num_groups > 1 or old.num_groups > 1 or new.score == "sparsemixer":
        return "experts in groups, or weighed one by one, cannot be repeated"
    whole = new.top_k == times * old.top_k
    return {
        name: Piece(
            (name,),
            f"each expert {times} times" if by_expert else "the same",
            "exact" if whole or not by_expert else "near",
        )
        for name, by_expert in _kept_names(case, params).items()
    }


def _to_dense(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options, general(case.source_options)
    if fault := width_fault(case) or _unlike(new, old):
        return fault
    for name in ("latent_size", "expert_norm", "identity_experts", "input_scaled"):
        if getattr(old, name):
            return f"with `{name}` experts do not read or give what a dense layer does"
    if old.shared_size and (old.side_bias != old.bias or old.shared_gate):
        return "the shared expert has a gate or other biases, which a dense layer does not"
    shared = old.shared_size or 0
    side_by_side = old.num_experts * old.intermediate_size + shared
    if new.intermediate_size == side_by_side:
        rule = "all experts side by side, each with its weight when the router says nothing"
    elif new.intermediate_size == old.intermediate_size + shared:
        rule = f"the mean of {old.num_experts} experts"
    else:
        return (
            f"a width of {new.intermediate_size} is neither that of one expert ({old.intermediate_size + shared}) "
            f"nor that of all ({side_by_side})"
        )
    rule += ", beside the shared expert" if shared else ""
    pieces = {}
    for name, source in expert_names(old).items():
        both = (name, f"shared_expert.{source}") if shared else (name,)
        if old.per_expert_scale and source.startswith("down_proj"):
            both = (*both, "per_expert_scale")
        pieces[source] = Piece(both, rule, "near")
    return pieces


def moe_transfers(params: Params) -> tuple[Transfer, ...]:
    """The transfers to a mixture that may have a shared expert.

    Args:
        params: `(options of moe, hidden size)` to names and shapes of the parameters.
    """
    copies = {"num_experts": 4, "top_k": 2, "intermediate_size": 32}
    parts = {"num_experts": 6, "top_k": 3, "intermediate_size": 16, "bias": True}
    upcycled = Transfer(
        name="transfer",
        sources=("core/mlp",),
        pieces=_from_dense,
        make=f"{_MAKE}from_dense",
        claim="The same before noise: copies, or all equal parts of the layer, are chosen together, and weights sum to "
        "what the output was divided by; where `top_k` is no multiple of the parts, the same on average only.",
        paper=f'{_UPCYCLING}; parts: He et al. 2024, "Upcycling Large Language Models into Mixture of Experts" '
        "(arXiv:2410.07524)",
        examples=(
            TransferExample(copies, {"intermediate_size": 32}),
            TransferExample(parts, {"intermediate_size": 48, "bias": True}),
        ),
    )
    beside = {"num_experts": 4, "intermediate_size": 24, "num_shared_experts": 2}
    return (upcycled, _beside("shared", beside), *_resized("core/moe", params))


def shared_expert_transfers(params: Params) -> tuple[Transfer, ...]:
    """The transfers to a mixture that always has a shared expert; see `moe_transfers`."""
    beside = {"num_experts": 4, "intermediate_size": 16, "shared_intermediate_size": 48}
    names = ("transfer", "shared")
    return (*(_beside(name, beside) for name in names), *_resized("core/shared_expert_moe", params))


def _beside(name: str, example: Mapping[str, Any]) -> Transfer:
    return Transfer(
        name=name,
        sources=("core/mlp",),
        pieces=_shared,
        make=f"{_MAKE}shared",
        claim="The same: the shared expert is the layer, and routed experts begin by adding nothing.",
        paper=_UPCYCLING,
        examples=(TransferExample(example, {"intermediate_size": 48}),),
    )


def _resized(own: str, params: Params) -> tuple[Transfer, ...]:
    """Out of mixtures with other numbers of experts."""

    def sizes(experts: int) -> dict[str, int]:
        return {"num_experts": experts, "top_k": experts // 2, "intermediate_size": 16}

    def fits(new: int, measured: Mapping[str, Any] | None = None) -> tuple[TransferExample, ...]:
        return (TransferExample(sizes(new), sizes(4), own, measured=measured),)

    return (
        Transfer(
            name="transfer",
            sources=MOE,
            pieces=partial(_merged, params),
            make=f"{_MAKE}merged",
            claim="The same if the experts of each group were equal and chosen together; their mean else.",
            examples=fits(2),
        ),
        Transfer(
            name="repeat",
            sources=MOE,
            pieces=partial(_repeated, params),
            make=f"{_MAKE}repeated",
            claim="The same if `top_k` grows as much as the number of experts.",
            examples=fits(8),
        ),
        Transfer(
            name="prune",
            sources=MOE,
            pieces=partial(_pruned, params),
            make=f"{_MAKE}pruned",
            claim="The same for tokens that were sent to none of the dropped experts.",
            paper='Lu et al. 2024, "Not All Experts are Equal" (arXiv:2402.14800)',
            needs="usage",
            examples=fits(3, {"usage": (0.4, 0.1, 0.3, 0.2)}),
        ),
    )


#: Of a dense layer out of experts.
DENSE: Final = Transfer(
    name="transfer",
    sources=MOE,
    pieces=_to_dense,
    make=f"{_MAKE}to_dense",
    claim="The same where all experts are chosen with equal weights (side by side), or are equal (their mean).",
    paper='Xue et al. 2022, "One Student Knows All Experts Know" (arXiv:2201.10890)',
    examples=(
        TransferExample({"intermediate_size": 64}, {"num_experts": 4, "intermediate_size": 16}),
        TransferExample({"intermediate_size": 16}, {"num_experts": 4, "intermediate_size": 16}),
    ),
)
