"""Hyper-connections, several residual streams with learned mixing: options and record."""

from math import prod
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Learning, Options, written
from axon_core.specs._saved import each, in_float32
from axon_core.specs._small import limited

__all__ = ["SPECS", "HyperConnectionsOptions", "all_streams"]

Shapes = dict[str, tuple[int, ...]]


class HyperConnectionsOptions(Options):
    """Several residual streams: gates sum them to what a branch reads, and spread its output over them again."""

    streams: int = Field(4, gt=1, description="Residual streams; the embedding is the start of each.")
    mixing: Literal["sinkhorn", "none"] = Field(
        "sinkhorn",
        description="How the streams themselves are mixed at each branch: by a matrix whose rows and columns sum to "
        "one, or not at all.",
    )
    iterations: int = Field(
        20, gt=0, description="Sinkhorn iterations, in which rows and columns of that matrix are normalised."
    )
    output_scale: float = Field(2.0, gt=0, description="Largest gate of a branch's output.")
    output_eps: float = Field(0.0, ge=0, description="Added to the gates of a branch's output.")
    eps: float = Field(
        1e-6, ge=0, description="Added to the gates of a branch's input, and to the sums of that matrix."
    )
    norm_eps: float = Field(
        1e-6, gt=0, description="Added to the mean square in the norm of what the gates are made of."
    )
    gates: Literal["own", "previous"] = Field(
        "own",
        description="Gates of a branch's input: from the streams that it reads, or from those that the branch before "
        "it read; the first branch then reads the first stream.",
    )
    end: Literal["gated", "mean"] = Field(
        "gated", description="What the final norm reads: the streams summed by gates, or their mean."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gates == "previous" and self.end != "gated":
            raise ValueError("`gates: previous` ends with the gates of the last branch: it needs `end: gated`")
        return self


def _connection_params(options: HyperConnectionsOptions, dims: Dims) -> Shapes:
    streams = options.streams
    mixed = options.mixing == "sinkhorn"
    outputs = 2 * streams + (streams**2 if mixed else 0)
    return {"fn": (outputs, streams * dims.hidden_size), "base": (outputs,), "scale": (3 if mixed else 2,)}


def _end_params(options: HyperConnectionsOptions, dims: Dims) -> Shapes:
    if options.end == "mean" or options.gates == "previous":
        return {}
    return {"fn": (options.streams, options.streams * dims.hidden_size), "base": (options.streams,), "scale": (1,)}


def _connection_flops(options: HyperConnectionsOptions, dims: Dims, tokens: int, context: int) -> int:
    """The gates, and the product of the mixing matrix with the streams."""
    mixing = options.streams**2 * dims.hidden_size if options.mixing == "sinkhorn" else 0
    return 2 * tokens * (prod(_connection_params(options, dims)["fn"]) + mixing)


def _end_flops(options: HyperConnectionsOptions, dims: Dims, tokens: int, context: int) -> int:
    return sum(2 * tokens * prod(shape) for name, shape in _end_params(options, dims).items() if name == "fn")


def _connection_saved(options: HyperConnectionsOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Streams before and after, what the branch gave, the gates; casts of streams; two matrices for each half round."""
    n, wide = options.streams, options.streams * dims.hidden_size
    mixed, cast = options.mixing == "sinkhorn", dtype != "float32"
    found = each(tokens, streams=2 * wide, output=dims.hidden_size) + in_float32(tokens, gates=6 * n + 2)
    if mixed:
        found += in_float32(tokens, mixing=4 * n**2 + n, rounds=(options.iterations - 1) * 2 * n * (n + 1))
    if cast:
        found += in_float32(tokens, casts=2 * wide) + each(tokens, mixed=wide if mixed else 0)
    return found


def _end_saved(options: HyperConnectionsOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Streams as they are normalised and as they are summed; gates of the last branch share those with it."""
    n, wide = options.streams, options.streams * dims.hidden_size
    if options.end == "mean":
        return ()
    if options.gates == "previous":
        return in_float32(tokens, streams=wide if dtype == "float32" else 0)
    return in_float32(tokens, streams=2 * wide, sum=dims.hidden_size, gates=3 * n + 2)


def all_streams(options: type[Options]) -> ComponentSpec:
    """The connection `all` of a scheme whose options have `streams`."""
    return ComponentSpec(
        name="all",
        kind="connection",
        options=options,
        module="axon_core.hyper_connections:AllStreams.from_options",
        summary="A branch reads all streams side by side, and its output is added to them.",
        flops=lambda options, dims, tokens, context: 0,  # elementwise
        saved=lambda options, dims, tokens, dtype: (),
        streams=lambda options, dims: options.streams,
    )


def _shrink(options: HyperConnectionsOptions, dims: Dims) -> dict[str, Any]:
    return written(options) | limited(options, {"streams": 3})


#: Small gates: neither Muon nor weight decay is meant for them.
_GATES: Final = Learning(undecayed=("fn",), adamw=("fn",))

SPECS: Final = (
    ComponentSpec(
        name="hyper_connections",
        kind="residual",
        options=HyperConnectionsOptions,
        module="axon_core.hyper_connections:HyperConnections.from_options",
        learning=_GATES,
        summary="Several residual streams that every branch reads, writes and mixes by learned gates.",
        source='Zhu et al. 2024, "Hyper-Connections" (arXiv:2409.19606); Xie et al. 2025, "mHC: Manifold-Constrained '
        'Hyper-Connections" (arXiv:2512.24880)',
        params=_end_params,
        flops=_end_flops,
        saved=_end_saved,
        float32=("fn", "base", "scale"),
        shrink=_shrink,
        connections=(
            ComponentSpec(
                name="gated",
                kind="connection",
                options=HyperConnectionsOptions,
                module="axon_core.hyper_connections:HyperConnection.from_options",
                learning=_GATES,
                summary="Gates around one branch.",
                params=_connection_params,
                flops=_connection_flops,
                saved=_connection_saved,
                float32=("fn", "base", "scale"),
            ),
            all_streams(HyperConnectionsOptions),
        ),
        examples=(
            {},
            {"streams": 2, "mixing": "none", "output_eps": 1e-6},
            {"streams": 3, "end": "mean", "iterations": 5},
            {"streams": 2, "gates": "previous"},
        ),
    ),
)
