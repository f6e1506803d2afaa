"""One residual stream whose branches are convolved: options and records."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State
from axon_core.specs._flops import convolution_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import convolution_saved

__all__ = ["SPECS", "BranchConvolutionsOptions"]

_MODULE: Final = "axon_core.branch_convolutions"


class BranchConvolutionsOptions(Options):
    """A causal depthwise convolution of each branch's output is added to it, before both are added to the stream."""

    # Over one token it would see no other.
    d_conv: int = Field(4, gt=1, description="Tokens that the convolutions see, the current one included.")


def _nothing(*_: Any) -> int:
    """Elementwise."""
    return 0


def _saved(options: BranchConvolutionsOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """What is convolved; no activation follows, which would need what the convolution gives."""
    found = convolution_saved(tokens, dims.hidden_size, options.d_conv, dtype)
    return tuple(array for array in found if array.name != "convolved")


SPECS: Final = (
    ComponentSpec(
        name="branch_convolutions",
        kind="residual",
        options=BranchConvolutionsOptions,
        module=f"{_MODULE}:BranchConvolutions.from_options",
        summary="One stream; the output of a branch passes a short causal convolution, beside itself (Inkling).",
        source="Thinking Machines Lab 2026, Inkling; branches: Allen-Zhu 2025, "
        '"Physics of Language Models: Part 4.1, Canon Layers" (SSRN 5240330)',
        params=lambda options, dims: {},
        flops=_nothing,
        saved=lambda options, dims, tokens, dtype: (),
        connections=(
            ComponentSpec(
                name="convolved",
                kind="connection",
                options=BranchConvolutionsOptions,
                module=f"{_MODULE}:Convolved.from_options",
                learning=learned(own=("conv.weight",)),
                summary="A branch and its convolution are added to the stream.",
                cache=lambda options, dims: State((Array("conv", (options.d_conv - 1, dims.hidden_size)),)),
                params=lambda options, dims: {"conv.weight": (dims.hidden_size, options.d_conv, 1)},
                flops=lambda options, dims, tokens, context: convolution_flops(
                    dims.hidden_size, options.d_conv, tokens
                ),
                saved=_saved,
                float32=("conv.weight",),
            ),
            ComponentSpec(
                name="plain",
                kind="connection",
                options=BranchConvolutionsOptions,
                module=f"{_MODULE}:Plain.from_options",
                summary="A branch is added to the stream, as usual.",
                params=lambda options, dims: {},
                flops=_nothing,
                saved=lambda options, dims, tokens, dtype: (),
            ),
        ),
        examples=({}, {"d_conv": 2}),
    ),
)
