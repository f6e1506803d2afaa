"""A norm that gates its output: options and record."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import activation_saved, each, norm_saved
from axon_core.specs._small import limited

__all__ = ["SPECS", "SelfGatedNormOptions"]


class SelfGatedNormOptions(Options):
    """Root-mean-square norm whose output is multiplied by the sigmoid of a small network of it."""

    rank: int = Field(16, gt=0, description="Width between the two matrices of the gate.")
    eps: float = Field(1e-6, gt=0, description="Added to the mean square, against division by zero.")


def _params(options: SelfGatedNormOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden = dims.hidden_size
    return {
        "norm.weight": (hidden,),
        "down_proj.weight": (options.rank, hidden),
        "up_proj.weight": (hidden, options.rank),
    }


def _saved(options: SelfGatedNormOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    found = norm_saved(tokens, dims.hidden_size) + each(tokens, normed=dims.hidden_size, gate=dims.hidden_size)
    return found + activation_saved(tokens, options.rank, "silu", gated=False)


def _shrink(options: SelfGatedNormOptions, dims: Dims) -> dict[str, Any]:
    return written(options) | limited(options, {"rank": 8})


SPECS: Final = (
    ComponentSpec(
        name="self_gated_norm",
        kind="norm",
        options=SelfGatedNormOptions,
        module="axon_core.self_gated_norm:SelfGatedNorm.from_options",
        learning=learned(),
        summary="Root-mean-square norm whose output a small network of it gates.",
        source="Hugging Face, `AXK2GatedRMSNorm` of transformers 5.24 (A.X K2)",
        params=_params,
        flops=lambda options, dims, tokens, context: product_flops(_params(options, dims), tokens),
        saved=_saved,
        shrink=_shrink,
        examples=({}, {"rank": 4, "eps": 1e-5}),
    ),
)
