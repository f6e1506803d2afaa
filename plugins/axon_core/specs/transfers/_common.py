"""What several transfers ask of a case before they promise anything."""

from __future__ import annotations

from typing import Any, Final

from axon_compose.registry import Case
from axon_core.specs._heads import head_shape

__all__ = ["ATTENTION", "differing", "misfit_of_attention", "ratio_fault", "width_fault"]

#: Types whose options are those of attention.
ATTENTION: Final = ("core/attention", "core/sliding_window_attention")


def width_fault(case: Case) -> str | None:
    """Why components of different models cannot lend each other matrices: their widths."""
    new, old = case.dims.hidden_size, case.source_dims.hidden_size
    return None if new == old else f"`hidden_size` is {new}, that of the source {old}"


def differing(names: list[str]) -> str:
    """Options that are others than those of the source, at the end of a rule; empty where there are none."""
    return f", though `{'`, `'.join(names)}` {'differs' if len(names) == 1 else 'differ'}" if names else ""


def ratio_fault(what: str, new: int, old: int) -> str | None:
    """Why one number of heads cannot be made from another, by repeating each or by merging neighbours."""
    if new % old and old % new:
        return f"{new} {what} can be made neither by repeating nor by merging {old}"
    return None


def misfit_of_attention(case: Case) -> str | None:
    """Why attention cannot lend its matrices to a layer that makes keys and values of its own, or None."""
    if fault := width_fault(case):
        return fault
    source: Any = case.source_options
    if source.kv_from is not None:
        return "the source reads the keys and values of another layer and has none of its own"
    head_shape(source, case.source_dims)  # raises what does not fit
    return None
