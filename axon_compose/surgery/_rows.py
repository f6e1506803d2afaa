"""Parts of a model whose sizes follow from the number of tokens, with rows for others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axon_compose.plan import Use
from axon_compose.plan._declared import declared
from axon_compose.registry import Dims, Piece, Raised
from axon_compose.surgery._making import COPIED, Made, Making

__all__ = ["NoRows", "with_rows"]


class NoRows(Exception):
    """A part that depends on which token is which in another way than by rows."""


def with_rows(making: Making, rows: tuple[tuple[int, ...], ...], before: Dims, after: Dims) -> Making:
    """A part with the rows of other tokens; as it is if it has none.

    Args:
        making: How it comes about so far.
        rows: For each token those of before.
        before: Sizes of the model so far.
        after: The same with the new number of tokens.

    Raises:
        NoRows: It depends on the tokens, and not by rows alone.
    """
    use = making.use
    if rows == tuple((token,) for token in range(before.vocab_size)):
        return making
    if use.token_rows != before.vocab_size:
        raise NoRows(f"{use.who} has {use.token_rows} rows for {before.vocab_size} tokens (`padded_vocab_size`)")
    # what has a row for each token shows with another number of them
    count = len(rows) + (len(rows) == before.vocab_size)
    try:
        sizes = declared(use.spec, use.options, after)
        others = declared(use.spec, use.options, Dims({**after, "vocab_size": count}))
    except Raised as raised:
        raise NoRows(f"{use.who} does not work with {len(rows)} tokens: {raised.reason}") from raised
    axes = dict(_axes(use, others.params, before.vocab_size, count))
    if "tokens" in use.spec.reads and use.reads.get("tokens") and use.spec.kind != "embedding":
        raise NoRows(f"{use.who} computes with the numbers of tokens")
    if not axes:
        return making
    new: Use = replace(use, dims=after, params=sizes.params, active=sizes.active)
    pieces = {name: Piece((name,), COPIED) for name in sizes.params}
    return Made(new, "vocabulary", making, pieces, axes=axes, rows=rows)


def _axes(use: Use, params: Any, old: int, new: int) -> Any:
    """Parameters that have rows of tokens, and on which axis."""
    if params.keys() != use.params.keys():
        raise NoRows(f"{use.who} has other parameters with {new} tokens")
    for name, shape in params.items():
        was = use.params[name]
        differ = [axis for axis, (one, other) in enumerate(zip(was, shape, strict=True)) if one != other]
        if differ and (len(differ) > 1 or (was[differ[0]], shape[differ[0]]) != (old, new)):
            raise NoRows(f"`{name}` of {use.who} does not have a row for each token")
        if not differ and old in was and use.spec.kind == "embedding" and old != new:
            raise NoRows(f"`{name}` of {use.who} has a number of tokens of its own")
        if differ:
            yield name, differ[0]
