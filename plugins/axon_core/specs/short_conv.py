"""The gated short convolution: options and record."""

from typing import Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, in_float32
from axon_core.specs._small import limited
from axon_core.specs.splits.convolutions import short_conv_split

__all__ = ["SPECS", "ShortConvOptions"]


class ShortConvOptions(Options):
    """Causal depthwise convolution of a few tokens between two gates (LFM2)."""

    # Over one token it would see no other, and the layer would mix nothing.
    d_conv: int = Field(3, gt=1, description="Tokens that the convolution sees, the current one included.")
    bias: bool = Field(False, description="Biases of the projections and of the convolution.")
    intermediate_size: int | None = Field(None, gt=0, description="Number of channels; `hidden_size` unless given.")

    def channels(self, hidden_size: int) -> int:
        """Number of channels."""
        return self.intermediate_size or hidden_size


def _params(options: ShortConvOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, channels = dims.hidden_size, options.channels(dims.hidden_size)
    weights: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (3 * channels, hidden),
        "conv.weight": (channels, options.d_conv, 1),
        "out_proj.weight": (hidden, channels),
    }
    biases = {name.replace("weight", "bias"): shape[:1] for name, shape in weights.items()}
    return weights | biases if options.bias else weights


def _flops(options: ShortConvOptions, dims: Dims, tokens: int, context: int) -> int:
    convolved = convolution_flops(options.channels(dims.hidden_size), options.d_conv, tokens)
    return product_flops(_params(options, dims), tokens) + convolved


def _saved(options: ShortConvOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    channels = options.channels(dims.hidden_size)
    found = each(tokens, input=dims.hidden_size, projected=3 * channels, output=channels)
    found += each(tokens, convolved_cast=channels) if dtype != "float32" else in_float32(tokens, convolved=channels)
    copies = 1 if dtype == "float32" else options.d_conv
    return found + in_float32(tokens, shifted=copies * channels)


def _cache(options: ShortConvOptions, dims: Dims) -> State:
    return State((Array("conv", (options.d_conv - 1, options.channels(dims.hidden_size))),))


SPECS: Final = (
    ComponentSpec(
        name="short_conv",
        kind="layer",
        options=ShortConvOptions,
        module="axon_core.short_conv:ShortConv.from_options",
        learning=learned(("out_proj.weight",), own=("conv.weight",)),
        summary="Causal convolution of a few tokens between two gates (LFM2).",
        source="Liquid AI 2025, LFM2",
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        split=short_conv_split,
        shrink=lambda options, dims: written(options) | limited(options, {"intermediate_size": 48}),
        examples=({}, {"d_conv": 4, "bias": True}, {"d_conv": 2}, {"intermediate_size": 48, "bias": True}),
    ),
)
