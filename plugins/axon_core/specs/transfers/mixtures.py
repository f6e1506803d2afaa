"""Mixtures of experts out of mixtures: other numbers of experts, and other options around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from axon_compose.registry import Case, Piece, Transfer, TransferExample
from axon_core.specs.transfers._common import differing, width_fault
from axon_core.specs.transfers._routing import MOE, PER_EXPERT, general, neutral_router
from axon_core.specs.transfers.experts import MAKE, UPCYCLED, beside

__all__ = ["moe_transfers", "shared_expert_transfers"]

Params = Callable[[Any, int], Mapping[str, tuple[int, ...]]]


def _alike_experts(case: Case) -> str | None:
    """Why experts cannot become other experts."""
    new, old = general(case.options), general(case.source_options)
    free = ("num_experts", "top_k", "correction_bias", "router_bias", "num_groups", "top_k_groups", "group_score")
    for name in type(new).model_fields:
        if name not in free and getattr(new, name) != getattr(old, name):
            return f"`{name}` differs from that of the source"
    if new.identity_experts or new.hashed or new.shared_sink:
        return (
            "experts that return their input, that a table assigns, or beside shared ones that the router scores, "
            "stay as many as they are"
        )
    return width_fault(case)


def _by_expert(
    params: Params, case: Case, rule: str, exactness: Literal["exact", "near"] = "near"
) -> Mapping[str, Piece]:
    """Parameters that source and new layer have: those with a row for each expert by a rule, others as they are."""
    new, old = general(case.options), general(case.source_options)
    known = params(old, case.source_dims.hidden_size)
    return {
        name: Piece((name,), rule, exactness) if name.startswith(PER_EXPERT) else Piece((name,), "the same")
        for name in params(new, case.dims.hidden_size)
        if name in known
    }


def _pruned(params: Params, case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), general(case.source_options)
    if fault := _alike_experts(case):
        return fault
    if new.num_experts >= old.num_experts:
        return f"{new.num_experts} experts are not fewer than the source's {old.num_experts}"
    return _by_expert(params, case, f"the {new.num_experts} experts that are chosen most, in their order")


def _as_many(params: Params, case: Case) -> Mapping[str, Piece] | str:
    """As many experts, with other options of the router or around them."""
    new, old = general(case.options), general(case.source_options)
    known = params(old, case.source_dims.hidden_size)
    shapes = params(new, case.dims.hidden_size)
    if fault := width_fault(case):
        return fault
    if odd := next((name for name, shape in shapes.items() if known.get(name, shape) != shape), None):
        return f"`{odd}` is {list(shapes[odd])}, in the source {list(known[odd])}"
    neutral = neutral_router(new)
    if odd := next((name for name in shapes if name not in known and name not in neutral), None):
        return f"the source has no `{odd}`"
    free = ("router_bias", "correction_bias", "per_expert_scale", "gain")
    names = [name for name in type(new).model_fields if getattr(new, name) != getattr(old, name)]
    names = [name for name in names if name not in free or getattr(old, name)]
    changed = differing(names)
    same = {
        name: Piece((name,), f"the same{changed}", "near" if changed else "exact") for name in shapes if name in known
    }
    return same | {name: neutral[name] for name in shapes if name not in known}


def _merged(params: Params, case: Case) -> Mapping[str, Piece] | str:
    new, old = general(case.options), general(case.source_options)
    if new.num_experts == old.num_experts:
        return _as_many(params, case)
    if fault := _alike_experts(case):
        return fault
    times, rest = divmod(old.num_experts, new.num_experts)
    if rest or times < 2:
        return f"{old.num_experts} experts cannot be merged into {new.num_experts} in equal groups"
    return _by_expert(params, case, f"means of {times} neighbouring experts")


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
    return _by_expert(params, case, f"each expert {times} times", "exact" if whole else "near")


def moe_transfers(params: Params) -> tuple[Transfer, ...]:
    """The transfers to a mixture that may have a shared expert.

    Args:
        params: `(options of moe, hidden size)` to names and shapes of the parameters.
    """
    example = {"num_experts": 4, "intermediate_size": 24, "num_shared_experts": 2}
    return (UPCYCLED, beside("shared", example), *_resized("core/moe", params))


def shared_expert_transfers(params: Params) -> tuple[Transfer, ...]:
    """The transfers to a mixture that always has a shared expert; see `moe_transfers`."""
    example = {"num_experts": 4, "intermediate_size": 16, "shared_intermediate_size": 48}
    names = ("transfer", "shared")
    return (*(beside(name, example) for name in names), *_resized("core/shared_expert_moe", params))


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
            make=f"{MAKE}merged",
            claim="The same if the experts of each group were equal and chosen together; their mean else; as many stay",
            examples=fits(2),
        ),
        Transfer(
            name="repeat",
            sources=MOE,
            pieces=partial(_repeated, params),
            make=f"{MAKE}repeated",
            claim="The same if `top_k` grows as much as the number of experts.",
            examples=fits(8),
        ),
        Transfer(
            name="prune",
            sources=MOE,
            pieces=partial(_pruned, params),
            make=f"{MAKE}pruned",
            claim="The same for tokens that were sent to none of the dropped experts.",
            paper='Lu et al. 2024, "Not All Experts are Equal" (arXiv:2402.14800)',
            needs="usage",
            examples=fits(3, {"usage": (0.4, 0.1, 0.3, 0.2)}),
        ),
    )
