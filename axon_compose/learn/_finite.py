"""Where numbers stop to be finite: a forward pass, looked at layer by layer."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from axon_compose.proof.verify import layer_outputs

__all__ = ["first_not_finite"]


def first_not_finite(model: Any, tokens: mx.array) -> str:
    """What the first part of a model is whose numbers are not finite, in words for a message.

    Weights come first: where one is not finite, all that follows cannot be. Then the outputs of the embedding and of
    the layers are looked at in order, then the logits; where all are finite, the gradient is to blame.

    Args:
        model: A `LanguageModel`.
        tokens: (B, L), with which it happened.
    """
    for name, value in tree_flatten(model.parameters()):
        if not _finite(value):
            return f"the weight `{name}`"
    with layer_outputs(model) as seen:
        logits = model(tokens)
        mx.eval(logits, seen)
    if seen and not _finite(seen[0]):
        return "the output of the embedding"
    for index, (layer, state) in enumerate(zip(model.plan.layers, seen[1:], strict=False)):
        if not _finite(state):
            return f"the output of layer {index} (`{layer.block}`)"
    return "the gradient" if _finite(logits) else "the logits"


def _finite(value: Any) -> bool:
    arrays = value if isinstance(value, tuple) else (value,)
    return all(mx.isfinite(array).all().item() for array in arrays if isinstance(array, mx.array))
