"""Norms out of norms, where one contains the other or nearly does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import Case, Piece, Transfer
from axon_core.specs.transfers._common import width_fault

__all__ = ["NORM_TRANSFERS"]

_SOURCES: Final = ("core/rms_norm", "core/layer_norm", "core/stream_norm")


def _centred(options: Any) -> bool:
    """Whether it subtracts the mean."""
    return options.norm == "layer_norm" if hasattr(options, "norm") else bool(getattr(options, "center", True))


def _changed(case: Case) -> str:
    """What the new norm does otherwise; empty if it can do what the source did."""
    new, old = case.options, case.source_options
    if _centred(new) != _centred(old):
        return "the mean is subtracted now" if _centred(new) else "the mean stays now"
    if new.eps != old.eps:
        return f"`eps` is {new.eps:g} instead of {old.eps:g}"
    for name, usual in (("num_groups", 1), ("scale_first", False)):
        if getattr(new, name, usual) != getattr(old, name, usual):
            return f"`{name}` differs"
    if old.weight and not new.weight:
        return "there is no scale"
    if getattr(old, "bias", False) and not getattr(new, "bias", False):
        return "there is no shift"
    return ""


def _pieces(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options, case.source_options
    if fault := width_fault(case):
        return fault
    changed = _changed(case)
    found = {}
    if new.weight:
        moved = new.offset != (old.offset if old.weight else 0.0)
        rule = "the scale" + (", less the offset" if moved else "") if old.weight else "a scale of one"
        found["weight"] = (("weight",) if old.weight else (), rule)
    if getattr(new, "bias", False):
        had = getattr(old, "bias", False)
        found["bias"] = (("bias",) if had else (), "the shift" if had else "zero")
    ending, exactness = (f", though {changed}", "near") if changed else ("", "exact")
    return {name: Piece(sources, rule + ending, exactness) for name, (sources, rule) in found.items()}  # type: ignore[arg-type]


NORM_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=_SOURCES,
        pieces=_pieces,
        make="axon_core.transfers.norms:scale_and_shift",
        claim="The same where only the offset of the scale differs, a scale or shift is added, or a centred RMS norm "
        "and a layer norm change places; with or without the mean subtracted, the same for inputs of mean zero.",
    ),
)
