"""Feed-forward layers of another width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from axon_compose.registry import Case, Piece, Transfer, TransferExample
from axon_core.specs.transfers._common import differing, width_fault
from axon_core.specs.transfers.experts import DENSE

__all__ = ["MLP_TRANSFERS"]

_MAKE: Final = "axon_core.transfers.mlp:"
#: Options that have no parameters and change what the layer computes.
_FREE: Final = ("activation", "limit", "situ", "sparsity")


def _misfit(case: Case) -> str | None:
    new, old = case.options, case.source_options
    if new.gated != old.gated:
        return f"the source has {'a' if old.gated else 'no'} gate"
    if new.activation == "xielu" != old.activation:
        return "`xielu` has slopes that the source does not have"
    return width_fault(case)


def _changed(case: Case) -> str:
    """What the layer computes otherwise, at the end of a rule; empty if nothing."""
    new, old = case.options, case.source_options
    names = [name for name in _FREE if getattr(new, name) != getattr(old, name)]
    names += [name for name in ("bias", "gain") if getattr(old, name) and not getattr(new, name)]
    return differing(names)


def _names(case: Case) -> tuple[str, ...]:
    options = case.options
    layers = ("gate_proj", "up_proj", "down_proj") if options.gated else ("up_proj", "down_proj")
    kinds = ("weight", "bias") if options.bias else ("weight",)
    learned = ("alpha_p", "alpha_n", "beta", "eps") if options.activation == "xielu" else ()
    names = (*(f"{layer}.{kind}" for layer in layers for kind in kinds), *(f"act_fn.{name}" for name in learned))
    return (*names, "gain") if options.gain else names


def _pieces(case: Case, rules: Mapping[str, str], near: bool) -> Mapping[str, Piece]:
    """A rule for each parameter, by its name or for all others as `*`."""
    changed, found = _changed(case), {}
    for name in _names(case):
        if name.endswith(".bias") and not case.source_options.bias:
            found[name] = Piece((), "zero, as without a bias")
            continue
        if name == "gain" and not case.source_options.gain:
            found[name] = Piece((), "one")
            continue
        whole = name in ("down_proj.bias", "gain") or name.startswith("act_fn.")
        rule = "the same" if whole else rules.get(name, rules["*"])
        found[name] = Piece((name,), rule + changed, "near" if changed or (near and not whole) else "exact")
    return found


def _resized(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options.intermediate_size, case.source_options.intermediate_size
    if fault := _misfit(case):
        return fault
    if new < old:
        return _pieces(case, {"*": f"the {new} channels with the largest weights, in their order"}, near=True)
    more = f"the same, and {new - old} new channels" if new > old else "the same"
    added = f"{more} that add nothing yet" if new > old else more
    # A cut at a mean over all channels is another one when there are more of them.
    near = new > old and case.options.sparsity is not None
    return _pieces(case, {"*": more, "down_proj.weight": added}, near)


def _by_use(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options.intermediate_size, case.source_options.intermediate_size
    if fault := _misfit(case):
        return fault
    if new >= old:
        return f"a width of {new} is no part of the source's {old}"
    return _pieces(case, {"*": f"the {new} channels that carry most, in their order"}, near=True)


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
