"""Parts of what is between tokens and vectors: tables and heads by their tokens, per-layer inputs by their width."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Cut, Dims, Role, Segment, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits._roles import Declared, Splitting

__all__ = ["embedding_split", "head_split", "input_split"]


def embedding_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Tokens of the table.

    Each device has the vectors of neighbouring tokens, and zeros for all others. Exactly one of the summands is not
    zero, so the sum is exact; it comes before everything else, so that norms and positions are those of the whole.
    Of per-layer inputs each device has some of the numbers of every vector, and so have the layers that read them;
    their norm has its mean squares summed.
    """
    vocabulary, inputs = int(dims.vocab_size), options.per_layer
    sizes = {"vocab_size": vocabulary} | ({"per_layer.size": inputs.size} if inputs is not None else {})
    if fault := uneven(devices, **sizes):
        return fault
    table = rows(vocabulary)
    roles: dict[str, Role] = {"embed_tokens.weight": table}
    inside = [Summed(options.size or dims.hidden_size)]
    changed: dict[str, Any] = {}
    if inputs is not None:
        vectors = (Segment(inputs.size, inputs.size),) * inputs.layers
        roles |= {"per_layer.embed_tokens.weight": Cut(1, vectors), "per_layer.proj.weight": Cut(0, vectors)}
        roles["per_layer.norm.weight"] = rows(inputs.size)
        inside.append(Summed(inputs.layers, "float32"))
        smaller = {"size": inputs.size // devices, "vocab_size": inputs.vocab_size or vocabulary}
        changed["per_layer"] = part(inputs, **smaller)
    return Split(
        part(options, **changed),
        roles,
        output="whole",
        dims={"vocab_size": vocabulary // devices},
        published=("per_layer_inputs",) if inputs is not None else (),
        inside=tuple(inside),
    )


def input_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """The numbers of the token's vector for the layer, as in an MLP as wide as it."""
    if fault := uneven(devices, size=options.size):
        return fault
    roles: dict[str, Role] = {"gate_proj.weight": rows(options.size), "down_proj.weight": columns(options.size)}
    return Split(part(options, size=options.size // devices), roles, published=("per_layer_inputs",))


def head_split(params: Declared) -> Splitting:
    """Tokens, whose scores are put beside each other; a tied head reads the device's part of the table.

    Args:
        params: The head's parameters.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        vocabulary = int(dims.vocab_size)
        if fault := uneven(devices, vocab_size=vocabulary):
            return fault
        names = {"lm_head.weight", "lm_head.bias", "bias"} & params(options, dims).keys()
        smaller = {"vocab_size": vocabulary // devices}
        return Split(options, dict.fromkeys(names, rows(vocabulary)), output="gather", dims=smaller)

    return split
