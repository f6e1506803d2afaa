"""Per-layer inputs and layer scales: options and records."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._per_layer_options import VALUE
from axon_core.specs._saved import each, mlp_saved
from axon_core.specs._small import limited
from axon_core.specs.mlp import ACTIVATION_HELP, Activation
from axon_core.specs.splits.vocabulary import input_split
from axon_core.specs.splits.whole import stream_split

__all__ = ["SPECS", "LayerScaleOptions", "PerLayerInputOptions"]


class PerLayerInputOptions(Options):
    """Gated projection of a vector that the token embedding has for this layer."""

    size: int = Field(gt=0, description="Width of the vectors: `per_layer.size` of the embedding.")
    index: int = Field(ge=0, description="Which of the token's vectors is read; `=i` for that of the layer.")
    activation: Activation = Field("gelu_tanh", description=ACTIVATION_HELP)


class LayerScaleOptions(Options):
    """One learned number that multiplies what has come so far."""


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
