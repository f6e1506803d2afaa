"""A second, narrow vector of each token for every layer, which the embedding has: options and shapes."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Dims, Options, written
from axon_core.specs._small import limited
from axon_core.specs.splits.vocabulary import ROWS

__all__ = ["VALUE", "PerLayerOptions", "per_layer_params", "shrink_inputs"]

#: Name of the value that the embedding publishes.
VALUE: Final = "per_layer_inputs"


class PerLayerOptions(Options):
    """A second, narrow vector of each token for every layer, for `per_layer_input` to read."""

    size: int = Field(gt=0, description="Width of a vector.")
    layers: int = Field(gt=0, description="Vectors of a token: one for every layer of the stack.")
    vocab_size: int | None = Field(
        default=None,
        gt=0,
        description="Tokens of its table, whose first row serves all others; the `vocab_size` of `dims` unless given.",
    )
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square in its norm.")


def per_layer_params(options: PerLayerOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.per_layer.PerLayerInputs`."""
    width = options.layers * options.size
    return {
        "embed_tokens.weight": (dims.get(ROWS) or options.vocab_size or dims.vocab_size, width),
        "proj.weight": (width, dims.hidden_size),
        "norm.weight": (options.size,),
    }


def shrink_inputs(options: PerLayerOptions) -> dict[str, Any]:
    """A narrow table for two layers, of the vocabulary that the whole model has."""
    small = {key: value for key, value in written(options).items() if key != "vocab_size"}
    return small | limited(options, {"size": 16, "layers": 2})
