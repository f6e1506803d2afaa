"""A gated leaky integrator for axon-compose. Records only: the layers are imported by `build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from axon_compose.registry import ArchitectureSpec, Array, ComponentSpec, Dims, Options, State, hookimpl

__all__ = ["LeakyOptions", "axon_architectures", "axon_components"]


class LeakyOptions(Options):
    """Options of `leaky/leaky_integrator`."""

    channels: int = Field(gt=0, description="Number of integrators.")
    slowest: float = Field(64.0, ge=2.0, description="Time constant of the slowest channel at the start, in tokens.")


SQUARED_RELU_OPTIONS = {
    "type": "object",
    "properties": {
        "intermediate_size": {"type": "integer", "minimum": 1, "description": "Width between the two matrices."},
        "bias": {"type": "boolean", "default": False, "description": "Whether both matrices have a bias."},
    },
    "required": ["intermediate_size"],
    "additionalProperties": False,
}


def leaky_cache(options: LeakyOptions, dims: Dims) -> State:
    """The integrators in float32, and the last input."""
    return State((Array("state", (options.channels,), "float32"), Array("last", (dims.hidden_size,))))


def leaky_params(options: LeakyOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `leaky/leaky_integrator`."""
    channels, hidden = options.channels, dims.hidden_size
    return {
        "mix": (hidden,),
        "leak": (channels,),
        "in_proj.weight": (3 * channels, hidden),
        "out_proj.weight": (hidden, channels),
    }


def squared_relu_params(options: Mapping[str, Any], dims: Dims) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `leaky/squared_relu_mlp`."""
    wide, hidden = options["intermediate_size"], dims.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"up_proj.weight": (wide, hidden), "down_proj.weight": (hidden, wide)}
    if options["bias"]:
        shapes |= {"up_proj.bias": (wide,), "down_proj.bias": (hidden,)}
    return shapes


@hookimpl
def axon_components() -> Iterator[ComponentSpec]:
    """Both layers."""
    yield ComponentSpec(
        name="leaky_integrator",
        kind="layer",
        options=LeakyOptions,
        module="axon_leaky.layers:LeakyIntegrator",
        summary="Gated leaky integrators: a running mean of constant size that forgets as the input says.",
        cache=leaky_cache,
        params=leaky_params,
        float32=("leak",),
        shrink=lambda options, dims: options.model_copy(update={"channels": min(options.channels, 12)}),
        examples=({"channels": 24}, {"channels": 7, "slowest": 8.0}),
    )
    yield ComponentSpec(
        name="squared_relu_mlp",
        kind="layer",
        options=SQUARED_RELU_OPTIONS,
        module="axon_leaky.layers:SquaredReluMLP",
        summary="Two matrices with a squared ReLU between them.",
        params=squared_relu_params,
        shrink=lambda options, dims: {**options, "intermediate_size": min(options["intermediate_size"], 24)},
        examples=({"intermediate_size": 48}, {"intermediate_size": 16, "bias": True}),
    )


@hookimpl
def axon_architectures() -> Iterator[ArchitectureSpec]:
    """The architecture beside this file."""
    folder = Path(__file__).resolve().parent / "architectures"
    yield ArchitectureSpec(
        "leaky-hybrid", str(folder / "leaky-hybrid.yaml"), "Leaky integrators, a window and experts."
    )
