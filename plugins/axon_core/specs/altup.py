"""Alternating updates, several residual streams of which one passes through the layers: options and record."""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Learning, Normal, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, in_float32
from axon_core.specs._small import limited

__all__ = ["SPECS", "AltUpOptions"]

Shapes = dict[str, tuple[int, ...]]


class AltUpOptions(Options):
    """Alternating updates: a layer computes one stream; the others are predicted, and corrected by what it gave."""

    streams: int = Field(4, gt=1, description="Residual streams.")
    active: int = Field(0, ge=0, description="The stream that passes through the layers.")
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in the norm of what the router reads.")
    correct_scale: bool = Field(
        True, description="Learn a factor for each dimension of what branches with the connection `others` read."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.active >= self.streams:
            raise ValueError(f"`active` ({self.active}) is not one of the {self.streams} `streams`")
        return self


def _end_params(options: AltUpOptions, dims: Dims) -> Shapes:
    names = (f"{place}_proj_{number}.weight" for place in ("in", "out") for number in range(options.streams - 1))
    return dict.fromkeys(names, (dims.hidden_size, dims.hidden_size))


def _layer_params(options: AltUpOptions, dims: Dims) -> Shapes:
    streams = options.streams
    return {
        "router_norm.weight": (dims.hidden_size,),
        "router.weight": (streams, dims.hidden_size),
        "predict.weight": (streams**2, streams),
        "correct.weight": (streams, streams),
    }


def _others_params(options: AltUpOptions, dims: Dims) -> Shapes:
    return {"scale": (dims.hidden_size,)} if options.correct_scale else {}


def _layer_flops(options: AltUpOptions, dims: Dims, tokens: int, context: int) -> int:
    """The router twice, the coefficients, and the product of the streams with those that predict."""
    router = 2 * tokens * options.streams * dims.hidden_size
    return product_flops(_layer_params(options, dims), tokens) + router * (1 + options.streams)


def _layer_saved(options: AltUpOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Twice what the router reads, what the layer adds, and the streams: in float32 predicted ones too."""
    streams, hidden = options.streams, dims.hidden_size
    coefficients = streams**2 + 6 * streams
    if dtype == "float32":
        return each(tokens, streams=2 * streams * hidden, routed=5 * hidden, coefficients=coefficients)
    return each(tokens, streams=streams * hidden, routed=9 * hidden, coefficients=coefficients)


def _end_saved(options: AltUpOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Of both ends: the first stream, and of each other what is projected, its length, and what comes of them.

    Lengths are computed in float32, of copies of other types.
    """
    others, hidden = options.streams - 1, dims.hidden_size
    found = each(tokens, first=2 * hidden, others=5 * others * hidden)
    found += in_float32(tokens, lengths=4 * options.streams - 2)
    return found if dtype == "float32" else found + in_float32(tokens, wide=(2 + 4 * others) * hidden)


def _shrink(options: AltUpOptions, dims: Dims) -> dict[str, Any]:
    small = written(options) | limited(options, {"streams": 3})
    return small | ({"active": 2} if options.active > 2 else {})


#: Predictions and corrections begin near none, so that streams neither grow nor mix at first.
_MIXING: Final = Learning(adamw=("*.weight",), initial=lambda options, dims: {"*norm.weight": None, "*": Normal(0.02)})

SPECS: Final = (
    ComponentSpec(
        name="altup",
        kind="residual",
        options=AltUpOptions,
        module="axon_core.altup:AltUp.from_options",
        learning=learned(("out_proj_*.weight",)),
        summary="Several residual streams, one of which passes through the layers (alternating updates).",
        source='Baykal et al. 2023, "Alternating Updates for Efficient Transformers" (arXiv:2301.13310)',
        params=_end_params,
        flops=lambda options, dims, tokens, context: product_flops(_end_params(options, dims), tokens),
        saved=_end_saved,
        shrink=_shrink,
        connections=(
            ComponentSpec(
                name="active",
                kind="connection",
                around="layer",
                options=AltUpOptions,
                module="axon_core.altup:AltUpLayer.from_options",
                learning=_MIXING,
                summary="Branches compute the active stream; the others are predicted before and corrected after them.",
                params=_layer_params,
                flops=_layer_flops,
                saved=_layer_saved,
                unquantized=("router", "predict", "correct"),
            ),
            ComponentSpec(
                name="others",
                kind="connection",
                options=AltUpOptions,
                module="axon_core.altup:AltUpOthers.from_options",
                summary="A branch reads the active stream, and its output is added to all streams but the first.",
                params=_others_params,
                flops=lambda options, dims, tokens, context: 0,  # elementwise
                saved=lambda options, dims, tokens, dtype: each(tokens, streams=options.streams * dims.hidden_size),
            ),
        ),
        examples=({}, {"streams": 2, "active": 1, "correct_scale": False, "norm_eps": 1e-5}),
    ),
)
