"""Learned augmented residual: options and record."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, norm_saved
from axon_core.specs._small import limited
from axon_core.specs.splits.whole import laurel_split

__all__ = ["SPECS", "LaurelOptions"]


class LaurelOptions(Options):
    """A residual connection with a learned part of low rank: the input, and a norm of its projection and back."""

    rank: int = Field(64, gt=0, description="Width between the two matrices.")
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in the norm.")


def _params(options: LaurelOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden = dims.hidden_size
    return {
        "left_proj.weight": (options.rank, hidden),
        "right_proj.weight": (hidden, options.rank),
        "norm.weight": (hidden,),
    }


def _saved(options: LaurelOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    return each(tokens, input=dims.hidden_size, inner=options.rank) + norm_saved(tokens, dims.hidden_size)


def _shrink(options: LaurelOptions, dims: Dims) -> dict[str, Any]:
    return written(options) | limited(options, {"rank": 8})


SPECS: Final = (
    ComponentSpec(
        name="laurel",
        kind="layer",
        options=LaurelOptions,
        module="axon_core.laurel:Laurel.from_options",
        learning=learned(),
        summary="The input itself, and a norm of its projection to a low rank and back (learned augmented residual).",
        source='Menghani et al. 2024, "LAuReL: Learned Augmented Residual Layer" (arXiv:2411.07501)',
        params=_params,
        flops=lambda options, dims, tokens, context: product_flops(_params(options, dims), tokens),
        saved=_saved,
        shrink=_shrink,
        split=laurel_split,
        examples=({"rank": 8}, {"rank": 16, "norm_eps": 1e-5}),
    ),
)
