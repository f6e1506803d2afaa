"""Tables of tokens for a head that gets a matrix of its own, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from axon_compose.registry import Case, Piece, Transfer
from axon_core.specs.transfers._common import width_fault

__all__ = ["HEAD_TRANSFERS", "TABLE_TRANSFERS"]

_PAPER: Final = 'Press and Wolf 2017, "Using the Output Embedding to Improve Language Models" (arXiv:1608.05859)'


def _untied(case: Case) -> Mapping[str, Piece] | str:
    new, table = case.options, case.source_options
    if fault := _table_fault(case):
        return fault
    if new.tied:
        return "a tied head reads the table of the embedding itself"
    if (table.size or case.dims.hidden_size) != case.dims.hidden_size:
        return f"the table is {table.size} wide, a head {case.dims.hidden_size}"
    pieces = {"lm_head.weight": Piece(("embed_tokens.weight",), "the table of the embedding")}
    return pieces | ({"lm_head.bias": Piece((), "zero")} if new.bias else {})


def _tied(case: Case) -> Mapping[str, Piece] | str:
    new, head = case.options, case.source_options
    if fault := _table_fault(case):
        return fault
    if head.tied:
        return "the source has no matrix of its own"
    if (new.size or case.dims.hidden_size) != case.dims.hidden_size:
        return f"the table is {new.size} wide, a head {case.dims.hidden_size}"
    return {"embed_tokens.weight": Piece(("lm_head.weight",), "the matrix of the head", "near")}


def _table_fault(case: Case) -> str | None:
    new, old = case.dims.vocab_size, case.source_dims.vocab_size
    return width_fault(case) or (None if new == old else f"`vocab_size` is {new}, that of the source {old}")


HEAD_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=("core/token_embedding",),
        pieces=_untied,
        make="axon_core.transfers.embedding:to_head",
        claim="The same: the head begins as the table that it was tied to.",
        paper=_PAPER,
    ),
)
TABLE_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=("core/lm_head",),
        pieces=_tied,
        make="axon_core.transfers.embedding:to_table",
        claim="Scores are the same; what comes in is the same only if the table was the head's matrix.",
        paper=_PAPER,
    ),
)
