"""Experts out of a dense layer, and a dense layer out of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import Case, Piece, Transfer, TransferExample
from axon_core.specs.transfers._common import width_fault
from axon_core.specs.transfers._routing import (
    MOE,
    added_by_experts,
    chosen_together,
    expert_names,
    free_router,
    general,
    neutral_router,
    normalised,
    shards,
    weight_sum,
)

__all__ = ["DENSE", "MAKE", "UPCYCLED", "beside"]

MAKE: Final = "axon_core.transfers.experts:"
_UPCYCLING: Final = 'Komatsuzaki et al. 2022, "Sparse Upcycling" (arXiv:2212.05055)'
#: What an expert and a dense layer must agree on.
_INNER: Final = ("activation", "limit", "situ", "gated", "bias")


def _unlike(new: Any, old: Any) -> str | None:
    """Why experts and a dense layer do not compute alike."""
    for name in _INNER:
        if getattr(new, name) != getattr(old, name):
            return f"`{name}` differs from that of the source"
    for one in (new, old):
        if getattr(one, "sparsity", None) is not None:
            return "experts have no `sparsity`"
        if one.gain:
            return "a learned `gain` of the output stays with the layer that has it"
    return None


def _wrapped(options: Any, *more: str) -> str | None:
    """Which option around the experts changes what they read and add, in a sentence; `more` are further ones."""
    for name in ("latent_size", "expert_norm", "identity_experts", "shared_sink", *more):
        if getattr(options, name):
            return f"with `{name}` experts do not read or give what a dense layer does"
    return None


def _routable(options: Any) -> str | None:
    """Why experts do not read and add what a dense layer does."""
    if fault := _wrapped(options):
        return fault
    if options.input_scaled and (options.top_k > 1 or abs(weight_sum(options) - 1) > 1e-9 or not normalised(options)):
        return "`input_scaled` changes what experts read: it needs `top_k: 1` and weights that sum to one"
    return None


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
    whole = chosen_together(new, cut)
    what = f"part i mod {cut.parts} of the layer, for expert i" if cut.parts > 1 else "the layer, for each expert"
    pieces = {}
    for name, source in expert_names(new).items():
        scaled = source.startswith("down_proj") and (cut.parts > 1 or abs(weight_sum(new) - 1) > 1e-9)
        rule = f"{what}, times what the weights take away" if scaled else what
        pieces[name] = Piece((source,), rule, "exact" if whole else "near")
    if not free_router(new):
        pieces["gate.weight"] = Piece((), "zero: every expert has the same weight")
    elif cut.parts > 1:
        pieces["gate.weight"] = Piece((), "the same row for all parts of one copy, so that they are chosen together")
    return pieces | neutral_router(new)


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
    if new.identity_experts:
        return "with `identity_experts` tokens keep a part of themselves, which a dense layer does not give"
    pieces = {}
    for source in expert_names(new).values():
        gated = new.shared_gate and source.startswith("down_proj")
        pieces[f"shared_expert.{source}"] = Piece((source,), "the layer" + (", times 2 for its gate" if gated else ""))
    added = added_by_experts(new)
    pieces[f"{added}.weight"] = Piece((), "zero: routed experts add nothing yet")
    if new.side_bias if new.latent_size else new.bias:
        pieces[f"{added}.bias"] = Piece((), "zero")
    if new.shared_gate:
        pieces["shared_expert_gate.weight"] = Piece((), "zero: half open")
        if new.shared_gate == "softmax":
            pieces["shared_expert_gate.bias"] = Piece((), "zero")
    return pieces


def _to_dense(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options, general(case.source_options)
    if fault := width_fault(case) or _unlike(new, old) or _wrapped(old, "input_scaled"):
        return fault
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


def beside(name: str, example: Mapping[str, Any]) -> Transfer:
    """A dense layer as the shared expert of a mixture.

    Args:
        name: What `init` calls it.
        example: Options of a mixture for a dense layer of 48.
    """
    return Transfer(
        name=name,
        sources=("core/mlp",),
        pieces=_shared,
        make=f"{MAKE}shared",
        claim="The same: the shared expert is the layer, and routed experts begin by adding nothing.",
        paper=_UPCYCLING,
        examples=(TransferExample(example, {"intermediate_size": 48}),),
    )


_COPIES: Final = {"num_experts": 4, "top_k": 2, "intermediate_size": 32}
_PARTS: Final = {"num_experts": 6, "top_k": 3, "intermediate_size": 16, "bias": True}
#: Of a mixture out of a dense layer.
UPCYCLED: Final = Transfer(
    name="transfer",
    sources=("core/mlp",),
    pieces=_from_dense,
    make=f"{MAKE}from_dense",
    claim="The same before noise: copies, or all equal parts of the layer, are chosen together, and weights sum to "
    "what the output was divided by; where `top_k` is no multiple of the parts, the same on average only.",
    paper=f'{_UPCYCLING}; parts: He et al. 2024, "Upcycling Large Language Models into Mixture of Experts" '
    "(arXiv:2410.07524)",
    examples=(
        TransferExample(_COPIES, {"intermediate_size": 32}),
        TransferExample(_PARTS, {"intermediate_size": 48, "bias": True}),
    ),
)
#: Of a dense layer out of experts.
DENSE: Final = Transfer(
    name="transfer",
    sources=MOE,
    pieces=_to_dense,
    make=f"{MAKE}to_dense",
    claim="The same where all experts are chosen with equal weights (side by side), or are equal (their mean).",
    paper='Xue et al. 2022, "One Student Knows All Experts Know" (arXiv:2201.10890)',
    examples=(
        TransferExample({"intermediate_size": 64}, {"num_experts": 4, "intermediate_size": 16}),
        TransferExample({"intermediate_size": 16}, {"num_experts": 4, "intermediate_size": 16}),
    ),
)
