"""Feed-forward layers: options and record."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from axon_compose.registry import ComponentSpec, Dims, Options

__all__ = ["SPECS", "ActivationName", "MLPOptions", "mlp_params"]

ActivationName = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


class MLPOptions(Options):
    """Feed-forward layer: gated (SwiGLU, GeGLU, ...) or with two matrices."""

    intermediate_size: int = Field(gt=0, description="Width between the matrices.")
    activation: ActivationName = Field("silu", description="Activation; relu2 is the square of relu.")
    gated: bool = Field(True, description="Multiply by a second projection; without it there are two matrices.")
    bias: bool = Field(False, description="Bias of every projection.")


def mlp_params(hidden: int, width: int, *, gated: bool = True, bias: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.mlp.MLP`."""
    matrices = {"up_proj": (width, hidden), "down_proj": (hidden, width)}
    if gated:
        matrices = {"gate_proj": (width, hidden), **matrices}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    if bias:
        shapes |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
    return shapes


def _params(options: MLPOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    return mlp_params(dims.hidden_size, options.intermediate_size, gated=options.gated, bias=options.bias)


def _shrink(written: dict[str, Any]) -> dict[str, Any]:
    return {**written, "intermediate_size": min(written["intermediate_size"], 48)}


SPECS: Final = (
    ComponentSpec(
        name="mlp",
        kind="layer",
        options=MLPOptions,
        module="axon_core.mlp:MLP.from_options",
        summary="Feed-forward layer: SwiGLU unless told otherwise.",
        params=_params,
        shrink=_shrink,
        examples=(
            {"intermediate_size": 48},
            {"intermediate_size": 48, "activation": "gelu_tanh", "bias": True},
            {"intermediate_size": 48, "activation": "relu2", "gated": False},
        ),
    ),
)
