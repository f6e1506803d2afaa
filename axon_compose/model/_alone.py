"""Layers of a model, each run by itself on an input that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx

from axon_compose.model._forward import make_mask
from axon_compose.model._language_model import LanguageModel

__all__ = ["needed_layers", "run_alone"]


def needed_layers(model: LanguageModel, wanted: Iterable[int]) -> list[int]:
    """Layers, and those whose published values they read, in their order."""
    layers, found, open_ = model.plan.layers, set(), list(wanted)
    while open_:
        index = open_.pop()
        if index not in found:
            found.add(index)
            open_ += [source for use in layers[index].uses() for source in use.source_layers]
    return sorted(found)


def run_alone(model: LanguageModel, tokens: mx.array, inputs: Mapping[int, mx.array]) -> dict[int, mx.array]:
    """What layers give for inputs that are not those of the layer before.

    A layer that reads what another one publishes, such as shared keys, reads what that one publishes for its own input.

    Args:
        model: Without a residual scheme.
        tokens: (B, L), that the inputs belong to.
        inputs: Layers, with all that `needed_layers` gives for them, to their inputs (B, L, D).

    Returns:
        Their outputs (B, L, D).
    """
    plan = model.plan
    masks = tuple(make_mask(group, None, tokens.shape[1]) for group in plan.masks)
    values: dict[str, Any] = {"offset": 0, "tokens": tokens}
    if any(source.startswith("embedding.") for index in inputs for source in plan.layers[index].reads):
        model._embedded(tokens, values)
    found = {}
    for index in sorted(inputs):
        read = {source: values[source] for source in plan.layers[index].reads}
        found[index], published = model.layers[index](inputs[index], masks, None, read)
        values |= published
    return found
