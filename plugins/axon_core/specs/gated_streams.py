"""Several residual streams with gates of every dimension: options and record."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, norm_saved
from axon_core.specs._small import limited
from axon_core.specs.hyper_connections import all_streams

__all__ = ["SPECS", "GatedStreamsOptions"]

Shapes = dict[str, tuple[int, ...]]


class GatedStreamsOptions(Options):
    """Several residual streams: a branch reads their mean, gated in every dimension, and each takes of its output."""

    streams: int = Field(4, gt=1, description="Residual streams; the embedding is the start of each.")
    rank: int = Field(gt=0, description="Width between the two matrices that the gates of all dimensions are made by.")
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in the norm of each stream.")
    norm_offset: float = Field(0.0, description="Added to the learned scale of that norm.")


def _end_params(options: GatedStreamsOptions, dims: Dims) -> Shapes:
    wide = options.streams * dims.hidden_size
    return {
        "norm.weight": (wide,),
        "down_proj.weight": (options.rank, wide),
        "up_proj.weight": (wide, options.rank),
    }


def _connection_params(options: GatedStreamsOptions, dims: Dims) -> Shapes:
    return _end_params(options, dims) | {"inject_proj.weight": (options.streams, options.streams * dims.hidden_size)}


def _end_saved(options: GatedStreamsOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The norm, what it gives, the gates, and of the narrow product three steps of its activation."""
    wide = options.streams * dims.hidden_size
    found = norm_saved(tokens, wide, options.streams, offset=options.norm_offset)
    return found + each(tokens, normed=wide, gates=wide, narrow=3 * options.rank)


def _connection_saved(options: GatedStreamsOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The same, the gates of the output, and that."""
    return _end_saved(options, dims, tokens, dtype) + each(tokens, writing=2 * options.streams, output=dims.hidden_size)


def _shrink(options: GatedStreamsOptions, dims: Dims) -> dict[str, Any]:
    return written(options) | limited(options, {"streams": 3, "rank": 8})


SPECS: Final = (
    ComponentSpec(
        name="gated_streams",
        kind="residual",
        options=GatedStreamsOptions,
        module="axon_core.gated_streams:GatedStreams.from_options",
        learning=learned(),
        summary="Several residual streams that branches read by low-rank gates of every dimension (Qwen4).",
        source="Qwen 2026, Qwen4",
        params=_end_params,
        flops=lambda options, dims, tokens, context: product_flops(_end_params(options, dims), tokens),
        saved=_end_saved,
        shrink=_shrink,
        connections=(
            ComponentSpec(
                name="gates",
                kind="connection",
                options=GatedStreamsOptions,
                module="axon_core.gated_streams:StreamGates.from_options",
                learning=learned(adamw=("inject_proj.weight",)),
                summary="A branch reads the gated mean of the streams, and each takes of its output by a gate.",
                params=_connection_params,
                flops=lambda options, dims, tokens, context: product_flops(_connection_params(options, dims), tokens),
                saved=_connection_saved,
            ),
            all_streams(GatedStreamsOptions),
        ),
        examples=({"rank": 8}, {"streams": 2, "rank": 4, "norm_eps": 1e-5, "norm_offset": 1.0}),
    ),
)
