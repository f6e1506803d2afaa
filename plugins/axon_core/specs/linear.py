"""A matrix in the place of a layer: options and record."""

from typing import Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each
from axon_core.specs.splits.square import OUTPUTS, linear_split

__all__ = ["SPECS", "LinearOptions"]


class LinearOptions(Options):
    """One square matrix, as a search over architectures leaves it in place of attention or an MLP."""

    bias: bool = Field(default=False, description="Whether it has a bias.")


def _params(options: LinearOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, outputs = dims.hidden_size, dims.get(OUTPUTS, dims.hidden_size)
    return {"linear.weight": (outputs, hidden)} | ({"linear.bias": (outputs,)} if options.bias else {})


def _saved(options: LinearOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    return each(tokens, input=dims.hidden_size)


SPECS: Final = (
    ComponentSpec(
        name="linear",
        kind="layer",
        options=LinearOptions,
        module="axon_core.projection:Projection.from_options",
        learning=learned(("linear.weight",)),
        summary="A square matrix in place of attention or an MLP.",
        source='Bercovich et al. 2024, "Puzzle: Distillation-Based NAS for Inference-Optimized LLMs" '
        "(arXiv:2411.19146)",
        params=_params,
        flops=lambda options, dims, tokens, context: product_flops(_params(options, dims), tokens),
        saved=_saved,
        split=linear_split(_params),
        examples=({}, {"bias": True}),
    ),
)
