"""Normalisation: options and records."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options
from axon_core.specs._heads import OFFSET_HELP, check_offset
from axon_core.specs._saved import norm_saved
from axon_core.specs.splits.whole import stream_split
from axon_core.specs.transfers.norms import NORM_TRANSFERS

__all__ = ["SPECS", "LayerNormOptions", "RMSNormOptions", "StreamNormOptions"]


class RMSNormOptions(Options):
    """Root-mean-square norm: divides by the root of the mean square, then scales each dimension."""

    eps: float = Field(default=1e-6, gt=0, description="Added to the mean square, against division by zero.")
    weight: bool = Field(default=True, description="Learn a scale for each dimension.")
    offset: float = Field(default=0.0, description=OFFSET_HELP)
    num_groups: int = Field(
        default=1, gt=0, description="Equal parts of neighbouring dimensions that are normalised each by itself."
    )
    center: bool = Field(
        default=False,
        description="Subtract the mean first: a layer norm without a shift, for files where a formula chooses one.",
    )
    scale_first: bool = Field(
        default=False, description="Multiply by the learned scale before the division instead of after it (Muse Spark)."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_offset(self.offset, self.weight)
        if self.scale_first and (not self.weight or self.center):
            raise ValueError("`scale_first` needs `weight: true` and `center: false`")
        if self.center and self.num_groups > 1:
            raise ValueError("`center` needs `num_groups: 1`")
        return self


class LayerNormOptions(Options):
    """Layer norm: subtracts the mean, divides by the standard deviation, then scales and shifts each dimension."""

    eps: float = Field(default=1e-5, gt=0, description="Added to the variance, against division by zero.")
    weight: bool = Field(default=True, description="Learn a scale for each dimension.")
    bias: bool = Field(default=True, description="Learn a shift for each dimension.")
    offset: float = Field(default=0.0, description=OFFSET_HELP)

    @model_validator(mode="after")
    def _offset_of_a_scale(self) -> Self:
        check_offset(self.offset, self.weight)
        return self


class StreamNormOptions(Options):
    """Norm of the residual stream itself."""

    norm: Literal["rms_norm", "layer_norm"] = Field(default="rms_norm", description="layer_norm subtracts the mean.")
    eps: float = Field(default=1e-6, gt=0, description="Added to the mean square, or to the variance.")
    weight: bool = Field(default=True, description="Learn a scale for each dimension.")
    bias: bool = Field(default=False, description="layer_norm: learn a shift for each dimension.")
    offset: float = Field(default=0.0, description=OFFSET_HELP)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_offset(self.offset, self.weight)
        if self.bias and self.norm == "rms_norm":
            raise ValueError("`bias` needs `norm: layer_norm`")
        return self


_AnyOptions = RMSNormOptions | LayerNormOptions | StreamNormOptions


def _params(options: _AnyOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    groups = getattr(options, "num_groups", 1)
    if dims.hidden_size % groups:
        raise ValueError(f"`hidden_size` ({dims.hidden_size}) is not a multiple of `num_groups` ({groups})")
    width = (dims.hidden_size,)
    return {name: width for name in ("weight", "bias") if getattr(options, name, False)}


def _saved(options: _AnyOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    groups = getattr(options, "num_groups", 1)
    return norm_saved(tokens, dims.hidden_size, groups, weight=options.weight, offset=options.offset)


SPECS: Final = (
    ComponentSpec(
        name="stream_norm",
        kind="block",
        options=StreamNormOptions,
        module="axon_core.norms:stream_norm",
        summary="Norm of the residual stream itself, which skip connections read too.",
        source='MiniMax 2025, "MiniMax-01" (arXiv:2501.08313), whose residual connections begin after the norms',
        params=_params,
        flops=lambda options, dims, tokens, context: 0,  # elementwise
        saved=_saved,
        transfers=NORM_TRANSFERS,
        split=stream_split,
        examples=({}, {"eps": 1e-5, "offset": 1.0}, {"norm": "layer_norm", "bias": True}),
    ),
    ComponentSpec(
        name="rms_norm",
        kind="norm",
        options=RMSNormOptions,
        module="axon_core.norms:RMSNorm.from_options",
        summary="Root-mean-square norm with a learned scale.",
        source='Zhang and Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv:1910.07467)',
        params=_params,
        flops=lambda options, dims, tokens, context: 0,  # elementwise
        saved=_saved,
        transfers=NORM_TRANSFERS,
        default=True,
        examples=({}, {"eps": 1e-5, "weight": False}, {"num_groups": 4}, {"offset": 1.0}, {"center": True}),
    ),
    ComponentSpec(
        name="layer_norm",
        kind="norm",
        options=LayerNormOptions,
        module="axon_core.norms:LayerNorm.from_options",
        summary="Layer norm with a learned scale and shift.",
        source='Ba et al. 2016, "Layer Normalization" (arXiv:1607.06450)',
        params=_params,
        flops=lambda options, dims, tokens, context: 0,  # elementwise
        saved=_saved,
        transfers=NORM_TRANSFERS,
        examples=({}, {"bias": False}, {"eps": 1e-6, "weight": False, "bias": False}, {"offset": 1.0}),
    ),
)
