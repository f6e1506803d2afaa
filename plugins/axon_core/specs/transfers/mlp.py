"""Feed-forward layers of another width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from axon_compose.registry import Case, Piece, Transfer, TransferExample
from axon_core.specs.transfers._common import width_fault
from axon_core.specs.transfers.experts import DENSE

__all__ = ["MLP_TRANSFERS"]

_MAKE: Final = "axon_core.transfers.mlp:"
_WIDER: Final = {"gate_proj.weight", "up_proj.weight"}


def _alike(case: Case) -> str | None:
    new, old = case.options, case.source_options
    for name in type(new).model_fields:
        if name != "intermediate_size" and getattr(new, name) != getattr(old, name):
            return f"`{name}` differs from that of the source"
    if new.sparsity is not None:
        return "`sparsity` cuts at a mean over all channels, which others would change"
    return width_fault(case)


def _names(case: Case) -> tuple[str, ...]:
    options = case.options
    layers = ("gate_proj", "up_proj", "down_proj") if options.gated else ("up_proj", "down_proj")
    kinds = ("weight", "bias") if options.bias else ("weight",)
    learned = ("alpha_p", "alpha_n", "beta", "eps") if options.activation == "xielu" else ()
    return (*(f"{layer}.{kind}" for layer in layers for kind in kinds), *(f"act_fn.{name}" for name in learned))


def _resized(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options.intermediate_size, case.source_options.intermediate_size
    if fault := _alike(case):
        return fault
    if new >= old:
        more = f"the same, and {new - old} new channels"
        rules = {"down_proj.weight": f"{more} that add nothing yet", "down_proj.bias": "the same"}
        return {name: Piece((name,), rules.get(name, more)) for name in _names(case)}
    return _kept(case, f"the {new} channels with the largest weights, in their order")


def _by_use(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options.intermediate_size, case.source_options.intermediate_size
    if fault := _alike(case):
        return fault
    if new >= old:
        return f"a width of {new} is no part of the source's {old}"
    return _kept(case, f"the {new} channels that carry most, in their order")


def _kept(case: Case, rule: str) -> Mapping[str, Piece]:
    same = {name for name in _names(case) if name == "down_proj.bias" or name.startswith("act_fn.")}
    return {
        name: Piece((name,), "the same", "exact") if name in same else Piece((name,), rule, "near")
        for name in _names(case)
    }


MLP_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=("same",),
        pieces=_resized,
        make=f"{_MAKE}resized",
        claim="The same if it gets wider; narrower, it lacks the channels with the smallest weights.",
        paper='wider: Chen et al. 2016, "Net2Net" (arXiv:1511.05641); narrower: Li et al. 2017, "Pruning Filters for '
        'Efficient ConvNets" (arXiv:1608.08710)',
        examples=(
            TransferExample({"intermediate_size": 56, "bias": True}, {"intermediate_size": 48, "bias": True}),
            TransferExample({"intermediate_size": 40}, {"intermediate_size": 48}),
        ),
    ),
    Transfer(
        name="slice",
        sources=("same",),
        pieces=_by_use,
        make=f"{_MAKE}by_use",
        claim="The same where the dropped channels are zero.",
        paper='Muralidharan et al. 2024, "Minitron" (arXiv:2407.14679)',
        needs="importance",
        examples=(
            TransferExample({"intermediate_size": 3}, {"intermediate_size": 4}, measured={"importance": (3, 0, 2, 1)}),
        ),
    ),
    DENSE,
)
