"""Mamba's mixer with heads: options and record."""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import SSM
from axon_core.specs._saved import convolution_saved, each, in_float32, norm_saved, ssd_saved
from axon_core.specs._small import limited
from axon_core.specs.splits.state_spaces import multihead_mamba_split
from axon_core.specs.ssm import check_step_limits

__all__ = ["SPECS", "MultiheadMambaOptions"]


class MultiheadMambaOptions(Options):
    """Mamba's mixer with one decay per head; step, B and C are projected from the convolved input (PLaMo 2)."""

    num_heads: int = Field(gt=0, description="Number of heads.")
    head_dim: int = Field(gt=0, description="Channels of each head.")
    d_state: int = Field(default=64, gt=0, description="States of each channel.")
    d_conv: int = Field(default=4, gt=0, description="Tokens that the convolution sees, the current one included.")
    dt_rank: int | None = Field(
        default=None, gt=0, description="Width that steps are projected from; a sixteenth of the hidden size, or 64."
    )
    dt_min: float = Field(default=0.0, ge=0, description="Smallest step; smaller ones are clipped.")
    dt_max: float | None = Field(
        default=None, gt=0, description="Largest step; larger ones are clipped. No limit unless given."
    )
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square in the norms of step, B and C.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_step_limits(self.dt_min, self.dt_max)
        return self

    @property
    def channels(self) -> int:
        """Channels of all heads together."""
        return self.num_heads * self.head_dim

    def rank(self, hidden_size: int) -> int:
        """Width that steps are projected from."""
        return self.dt_rank or max(64, hidden_size // 16)


def _params(options: MultiheadMambaOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, inner, states = dims.hidden_size, options.channels, options.d_state
    rank, heads = options.rank(hidden), (options.num_heads,)
    return {
        "in_proj.weight": (2 * inner, hidden),
        "conv1d.weight": (inner, options.d_conv, 1),
        "bcdt_proj.weight": (2 * states + rank, inner),
        "dt_proj.weight": (options.num_heads, rank),
        "dt_norm.weight": (rank,),
        "B_norm.weight": (states,),
        "C_norm.weight": (states,),
        "A_log": heads,
        "dt_bias": heads,
        "D": heads,
        "out_proj.weight": (hidden, inner),
    }


def _flops(options: MultiheadMambaOptions, dims: Dims, tokens: int, context: int) -> int:
    """Of the scan, for every number of the state: decay 1, input 2, output 2."""
    inner = options.channels
    products = product_flops(_params(options, dims), tokens)
    return products + convolution_flops(inner, options.d_conv, tokens) + 5 * tokens * inner * options.d_state


def _saved(options: MultiheadMambaOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The convolution, the norms, the steps, the scan's inputs and states, and the gate."""
    heads, inner, whole = options.num_heads, options.channels, dtype == "float32"
    projected = 2 * options.d_state + options.rank(dims.hidden_size)
    found = each(tokens, input=dims.hidden_size, activated=inner, output=inner)
    found += convolution_saved(tokens, inner, options.d_conv, dtype)
    found += in_float32(tokens, sigmoid=inner, steps=3 * heads, driven=inner)
    found += norm_saved(tokens, projected, 3)
    found += each(tokens, gate=2 * inner, gate_sigmoid=inner, scanned=inner)
    if not whole:
        found += in_float32(tokens, driving=inner, skipped=inner, cast=projected)
    copied = 2 * options.d_state + heads if whole else 0
    return found + ssd_saved(tokens, heads, options.head_dim, options.d_state, inputs=copied)


def _cache(options: MultiheadMambaOptions, dims: Dims) -> State:
    state = (options.num_heads, options.head_dim, options.d_state)
    return State((Array("conv", (options.d_conv - 1, options.channels)), Array("ssm", state, "float32")))


def _shrink(options: MultiheadMambaOptions, dims: Dims) -> dict[str, Any]:
    """Four heads of eight channels; `d_conv` stays, for it decides what the cache looks like."""
    sizes = {"num_heads": 4, "head_dim": 8, "d_state": 6, "dt_rank": 6}
    return written(options) | limited(options, {"d_conv": 4}) | sizes


SPECS: Final = (
    ComponentSpec(
        name="multihead_mamba",
        kind="layer",
        options=MultiheadMambaOptions,
        module="axon_core.multihead_mamba:MultiheadMamba.from_options",
        learning=SSM,
        summary="Mamba's mixer with one decay per head; its step, B and C are normalised (PLaMo 2).",
        source="Preferred Networks 2025, PLaMo 2 (arXiv:2509.04897); scan: Dao and Gu 2024 (arXiv:2405.21060)",
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        float32=("A_log", "dt_bias", "D"),
        split=multihead_mamba_split,
        shrink=_shrink,
        examples=(
            {"num_heads": 4, "head_dim": 8, "d_state": 6},
            {"num_heads": 6, "head_dim": 4, "d_state": 8, "d_conv": 2, "dt_rank": 5, "norm_eps": 1e-3},
            {"num_heads": 2, "head_dim": 16, "d_state": 5, "dt_min": 1e-3, "dt_max": 0.1},
        ),
    ),
)
