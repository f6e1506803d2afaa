"""Tables of tokens for a head that gets a matrix of its own, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import Case, Piece, Transfer
from axon_core.specs.transfers._common import width_fault

__all__ = ["HEAD_TRANSFERS", "TABLE_TRANSFERS"]

_PAPER: Final = 'Press and Wolf 2017, "Using the Output Embedding to Improve Language Models" (arXiv:1608.05859)'


def _untied(case: Case) -> Mapping[str, Piece] | str:
    head, table = case.options, case.source_options
    if fault := _misfit(case, head, table, "a tied head reads the table of the embedding itself"):
        return fault
    pieces = {"lm_head.weight": Piece(("embed_tokens.weight",), "the table of the embedding")}
    return pieces | ({"lm_head.bias": Piece((), "zero")} if head.bias else {})


def _tied(case: Case) -> Mapping[str, Piece] | str:
    if fault := _misfit(case, case.source_options, case.options, "the source has no matrix of its own"):
        return fault
    return {"embed_tokens.weight": Piece(("lm_head.weight",), "the matrix of the head", "near")}


def _misfit(case: Case, head: Any, table: Any, tied: str) -> str | None:
    """Why the matrix of a head and a table cannot be the same, or None.

    Args:
        case: Both components.
        head: Options of the one that is a head.
        table: Options of the one that is a table.
        tied: What is said of a head without a matrix.
    """
    new, old, hidden = case.dims.vocab_size, case.source_dims.vocab_size, case.dims.hidden_size
    if fault := width_fault(case):
        return fault
    if new != old:
        return f"`vocab_size` is {new}, that of the source {old}"
    if head.tied:
        return tied
    if head.padded_vocab_size != table.padded_vocab_size:
        return f"`padded_vocab_size` of the head is {head.padded_vocab_size}, of the table {table.padded_vocab_size}"
    return f"the table is {table.size} wide, a head {hidden}" if (table.size or hidden) != hidden else None


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
