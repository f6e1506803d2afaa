"""Per-layer inputs and layer scales: options and records."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, mlp_saved
from axon_core.specs._small import limited
from axon_core.specs.mlp import ACTIVATION_HELP, Activation
from axon_core.specs.splits.vocabulary import ROWS, input_split
from axon_core.specs.splits.whole import stream_split

__all__ = [
    "SPECS",
    "VALUE",
    "LayerScaleOptions",
    "PerLayerInputOptions",
    "PerLayerOptions",
    "per_layer_params",
    "shrink_inputs",
]

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


class PerLayerInputOptions(Options):
    """Gated projection of a vector that the token embedding has for this layer."""

    size: int = Field(gt=0, description="Width of the vectors: `per_layer.size` of the embedding.")
    index: int = Field(ge=0, description="Which of the token's vectors is read; `=i` for that of the layer.")
    activation: Activation = Field("gelu_tanh", description=ACTIVATION_HELP)


class LayerScaleOptions(Options):
    """One learned number that multiplies what has come so far."""


def per_layer_params(options: PerLayerOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.per_layer.PerLayerInputs`."""
    width = options.layers * options.size
    return {
        "embed_tokens.weight": (dims.get(ROWS) or options.vocab_size or dims.vocab_size, width),
        "proj.weight": (width, dims.hidden_size),
        "norm.weight": (options.size,),
    }


def _input_params(options: PerLayerInputOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden = dims.hidden_size
    return {"gate_proj.weight": (options.size, hidden), "down_proj.weight": (hidden, options.size)}


def _accepts(options: PerLayerInputOptions, source: Any, dims: Dims) -> str | None:
    """Why the vectors of an embedding cannot serve, or None; another plugin's embedding is left to itself."""
    if not hasattr(source, "per_layer"):
        return None
    given = source.per_layer
    if given is None:
        return "it has no `per_layer`"
    if given.size != options.size:
        return f"its `per_layer.size` is {given.size}, `size` is {options.size}"
    if options.index >= given.layers:
        return f"its `per_layer.layers` is {given.layers}, `index` is {options.index}"
    return None


def shrink_inputs(options: PerLayerOptions) -> dict[str, Any]:
    """A narrow table for two layers, of the vocabulary that the whole model has."""
    small = {key: value for key, value in written(options).items() if key != "vocab_size"}
    return small | limited(options, {"size": 16, "layers": 2})


def _shrink(options: PerLayerInputOptions, dims: Dims) -> dict[str, Any]:
    """Layers beyond the second read what the second reads, so that they are of one kind."""
    return written(options) | limited(options, {"size": 16, "index": 1})


SPECS: Final = (
    ComponentSpec(
        name="per_layer_input",
        kind="layer",
        options=PerLayerInputOptions,
        module="axon_core.per_layer:PerLayerInput.from_options",
        learning=learned(("down_proj.weight",)),
        summary="Gated projection of the per-layer input of the embedding (`per_layer` of `token_embedding`).",
        source="Google, Gemma 3n",
        params=_input_params,
        flops=lambda options, dims, tokens, context: product_flops(_input_params(options, dims), tokens),
        saved=lambda options, dims, tokens, dtype: mlp_saved(
            tokens, dims.hidden_size, options.size, options.activation
        ),
        reads={VALUE: None},
        accepts=_accepts,
        split=input_split,
        shrink=_shrink,
        examples=({"size": 16, "index": 0}, {"size": 16, "index": 1, "activation": "silu"}),
    ),
    ComponentSpec(
        name="layer_scale",
        kind="block",
        options=LayerScaleOptions,
        module="axon_core.per_layer:LayerScale.from_options",
        summary="A learned number that multiplies the residual stream.",
        source="Google, Gemma 4",
        params=lambda options, dims: {"scale": (1,)},
        flops=lambda options, dims, tokens, context: 0,  # elementwise
        saved=lambda options, dims, tokens, dtype: each(tokens, input=dims.hidden_size),
        split=stream_split,
        examples=({},),
    ),
)
