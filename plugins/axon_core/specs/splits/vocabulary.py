"""Parts of what is between tokens and vectors: tables and heads by their tokens, per-layer inputs by their width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from axon_compose.registry import Cut, Dims, Role, Segment, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits._roles import Declared, Splitting

__all__ = ["BY_WIDTH", "ROWS", "embedding_split", "head_split", "input_split"]

#: Sizes of a part that has some of the numbers of every per-layer vector, or the vectors of a number of tokens.
BY_WIDTH: Final = "per_layer_by_width"
ROWS: Final = "per_layer_rows"


def embedding_split(options: Any, dims: Dims, devices: int) -> Split | list[Split]:
    """Tokens of the table.

    Each device has the vectors of neighbouring tokens, of which the last one has fewer where they do not divide, and
    zeros for all others. Exactly one of the summands is not zero, so the sum is exact; it comes before everything else,
    so that norms and positions are those of the whole. Of per-layer inputs each device has some of the numbers of every
    vector, and so have the layers that read them; their norm has its mean squares summed. Where their width does not
    divide, or a cut would tear groups, each device has the vectors of some tokens, as of the table.
    """
    vocabulary, inputs = int(dims.vocab_size), options.per_layer
    held = options.padded_vocab_size or vocabulary
    roles: dict[str, Role] = {"embed_tokens.weight": rows(held, padded=True)}
    padded = options.padded_vocab_size is not None
    sizes, looked_up = _share(held, dims, devices, padded), Summed(options.size or dims.hidden_size)
    table = Split(part(options, "padded_vocab_size"), roles, "whole", sizes, inside=(looked_up,))
    if inputs is None:
        return table
    return list(_with_inputs(table, options, inputs.vocab_size or vocabulary, devices))


def _share(rows: int, dims: Dims, devices: int, padded: bool = False) -> dict[str, int]:
    """Sizes of a part that has some rows of a table, which it takes for all there are.

    Args:
        rows: Of the whole table, padding included.
        dims: Sizes of the whole.
        devices: Their number.
        padded: Whether the head learns of rows beyond the tokens.
    """
    names = ("vocab_size", "embedding_rows") if padded or "embedding_rows" in dims else ("vocab_size",)
    return dict.fromkeys(names, -(-rows // devices))


def _with_inputs(table: Split, options: Any, tokens: int, devices: int) -> Iterator[Split]:
    """The ways to split per-layer inputs beside the table: by their width, and by their tokens."""
    inputs, size, layers = options.per_layer, options.per_layer.size, options.per_layer.layers
    whole = replace(table, options=part(options, "padded_vocab_size", per_layer=part(inputs, vocab_size=tokens)))
    if not size % devices:
        vectors = (Segment(size, size),) * layers
        learned = {"embed_tokens.weight": Cut(1, vectors), "proj.weight": Cut(0, vectors), "norm.weight": rows(size)}
        yield Split(
            part(options, "padded_vocab_size", per_layer=part(inputs, size=size // devices, vocab_size=tokens)),
            {**table.roles, **{f"per_layer.{name}": cut for name, cut in learned.items()}},
            "whole",
            {**table.dims, BY_WIDTH: True},
            published=("per_layer_inputs",),
            inside=(*table.inside, Summed(layers, "float32")),
        )
    yield replace(
        whole,
        roles={**table.roles, "per_layer.embed_tokens.weight": rows(tokens, padded=True)},
        dims={**table.dims, ROWS: -(-tokens // devices)},
        inside=(*table.inside, Summed(layers * size)),
    )


def input_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """The numbers of the token's vector for the layer, as in an MLP as wide as it."""
    if fault := uneven(devices, size=options.size):
        return fault
    roles: dict[str, Role] = {"gate_proj.weight": rows(options.size), "down_proj.weight": columns(options.size)}
    return Split(part(options, size=options.size // devices), roles, published=("per_layer_inputs",))


def head_split(params: Declared, scored: Callable[[Any, Dims], int]) -> Splitting:
    """Tokens, whose scores are put beside each other; a tied head reads the device's part of the table.

    Where they do not divide, the scores of rows that pad the last part are left out.

    Args:
        params: The head's parameters.
        scored: `(options, dims)` to the rows of its matrix or table, padding included.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split:
        held = scored(options, dims)
        names = {"lm_head.weight", "lm_head.bias", "bias"} & params(options, dims).keys()
        roles = dict.fromkeys(names, rows(held, padded=True))
        own, sizes = part(options, "padded_vocab_size"), _share(held, dims, devices)
        return Split(own, roles, output="gather", gathered=held if held > dims.vocab_size else None, dims=sizes)

    return split
