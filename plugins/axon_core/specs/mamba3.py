"""Mamba-3: options and record."""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, in_float32, states_saved
from axon_core.specs._segments import SSD_BLOCK, ssd_blocks
from axon_core.specs._small import limited
from axon_core.specs.splits.state_spaces import mamba3_split

__all__ = ["SPECS", "Mamba3Options"]


class Mamba3Options(Options):
    """Mamba-3's mixer: trapezoids, rotated states, decays made of the input, and no convolution."""

    num_heads: int | None = Field(
        None, gt=0, description="Number of heads; `expand * hidden_size / head_dim` unless given."
    )
    head_dim: int = Field(64, gt=0, description="Channels of each head.")
    expand: float = Field(2, gt=0, description="Channels per hidden dimension, all heads together.")
    d_state: int = Field(128, gt=1, description="States of each channel.")
    n_groups: int = Field(1, gt=0, description="Groups of heads, each with B and C of its own.")
    rope_fraction: float = Field(0.5, gt=0, le=1, description="Part of the states that is rotated.")
    mimo_rank: int | None = Field(
        None, gt=0, description="Inputs and outputs of each head that share its state (MIMO); one (SISO) unless given."
    )
    a_floor: float = Field(1e-4, gt=0, description="Least rate of decay.")
    norm: bool = Field(False, description="RMS norm of each head's output before its gate.")

    @model_validator(mode="after")
    def _one_number_of_heads(self) -> Self:
        if self.num_heads is not None and "expand" in self.model_fields_set:
            raise ValueError("`expand` and `num_heads` both say how many heads there are: give one of them")
        return self

    def heads(self, hidden: int) -> int:
        """Number of heads.

        Raises:
            ValueError: Sizes do not divide.
        """
        inner = self.num_heads * self.head_dim if self.num_heads else int(self.expand * hidden)
        if inner % self.head_dim:
            raise ValueError(f"{inner} channels are not a multiple of `head_dim` ({self.head_dim})")
        heads = inner // self.head_dim
        if heads % self.n_groups:
            raise ValueError(f"{heads} heads are not a multiple of `n_groups` ({self.n_groups})")
        if not self.pairs:
            raise ValueError(f"`rope_fraction` of {self.d_state} states is no pair")
        return heads

    @property
    def rank(self) -> int:
        """Inputs of each head."""
        return self.mimo_rank or 1

    @property
    def pairs(self) -> int:
        """Pairs of states that are rotated."""
        return int(self.d_state * self.rope_fraction) // 2

    def sections(self, hidden: int) -> tuple[int, ...]:
        """Widths of the gate, x, B, C, steps, rates, shares and angles in the input projection."""
        heads, states = self.heads(hidden), self.rank * self.n_groups * self.d_state
        inner = heads * self.head_dim
        return inner, inner, states, states, heads, heads, heads, self.pairs


def _params(options: Mamba3Options, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, states = dims.hidden_size, options.d_state
    heads = options.heads(hidden)
    inner = heads * options.head_dim
    found: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (sum(options.sections(hidden)), hidden),
        "out_proj.weight": (hidden, inner),
        "dt_bias": (heads,),
        "B_bias": (heads, options.rank, states),
        "C_bias": (heads, options.rank, states),
        "B_norm.weight": (states,),
        "C_norm.weight": (states,),
        "D": (heads,),
    }
    if options.mimo_rank:
        found |= dict.fromkeys(("mimo_x", "mimo_z", "mimo_o"), (heads, options.rank, options.head_dim))
    return found | ({"norm.weight": (inner,)} if options.norm else {})


def _flops(options: Mamba3Options, dims: Dims, tokens: int, context: int) -> int:
    """For every number of the state: decay 1, adding 1, and 2 for each entry that comes in, came last and is read."""
    matrices = {name: shape for name, shape in _params(options, dims).items() if name.endswith("proj.weight")}
    numbers = options.heads(dims.hidden_size) * options.head_dim * options.d_state
    return product_flops(matrices, tokens) + tokens * numbers * (2 + 6 * options.rank)


def _saved(options: Mamba3Options, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Everything between the projections, in float32: factors of the products before the scans and after them."""
    heads, rank = options.heads(dims.hidden_size), options.rank
    inner, states, pairs = heads * options.head_dim, rank * heads * options.d_state, heads * options.pairs
    grouped = rank * options.n_groups
    found = each(tokens, input=dims.hidden_size, output=inner)
    found += in_float32(tokens, normalised=4 * grouped * (options.d_state + 1), keys=5 * states)
    if options.mimo_rank:
        found += in_float32(tokens, inputs=3 * inner, entries=10 * rank * inner, turns=6 * pairs)
        found += in_float32(tokens, steps=10 * heads + 5 * rank * heads + 3 * rank * rank * heads // 2)
    else:
        found += in_float32(tokens, inputs=8 * inner, turns=5 * pairs, steps=17 * heads)
    if options.norm:
        found += in_float32(tokens, norm=2 * rank * (inner + heads))
    steps = min(tokens * rank, SSD_BLOCK)
    segment = steps * ssd_blocks(heads, steps, options.head_dim, options.d_state)
    return found + 2 * states_saved(tokens * rank, segment, inner * options.d_state)


def _cache(options: Mamba3Options, dims: Dims) -> State:
    heads = options.heads(dims.hidden_size)
    return State(
        (
            Array("angle", (heads, options.pairs), "float32"),
            Array("ssm", (heads, options.head_dim, options.d_state), "float32"),
            Array("key", (options.rank, heads, options.d_state), "float32"),
            Array("value", (heads, options.head_dim), "float32"),
        )
    )


def _shrink(options: Mamba3Options, dims: Dims) -> dict[str, Any]:
    small = {name: value for name, value in written(options).items() if name != "num_heads"}
    return small | limited(options, {"n_groups": 2}) | {"head_dim": 8, "d_state": 8, "expand": 2}


SPECS: Final = (
    ComponentSpec(
        name="mamba3",
        kind="layer",
        options=Mamba3Options,
        module="axon_core.mamba3:Mamba3.from_options",
        learning=learned(("out_proj.weight",)),
        summary="Mamba-3's mixer: trapezoidal steps, rotated states, decays made of the input, no convolution.",
        source='Lahoti et al. 2026, "Mamba-3: Improved Sequence Modeling using State Space Principles" '
        "(arXiv:2603.15569)",
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        float32=("dt_bias", "B_bias", "C_bias", "D", "mimo_x", "mimo_z", "mimo_o"),
        split=mamba3_split,
        shrink=_shrink,
        examples=(
            {"head_dim": 16, "d_state": 8},
            {"head_dim": 16, "d_state": 12, "n_groups": 2, "rope_fraction": 1.0, "norm": True},
            {"head_dim": 8, "expand": 1, "d_state": 6, "a_floor": 0.1},
            {"num_heads": 4, "head_dim": 8, "d_state": 6, "norm": True},
            {"head_dim": 16, "d_state": 8, "mimo_rank": 2},
            {"head_dim": 16, "d_state": 12, "n_groups": 2, "rope_fraction": 1.0, "norm": True, "mimo_rank": 3},
        ),
    ),
)
