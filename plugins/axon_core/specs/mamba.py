"""The mixers of Mamba and Mamba-2: options and records."""

from math import inf
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import SSM, learned
from axon_core.specs._saved import convolution_saved, each, in_float32, norm_saved, ssd_saved
from axon_core.specs._small import limited
from axon_core.specs.splits.state_spaces import mamba2_split, mamba_split
from axon_core.specs.ssm import (
    SelectiveOptions,
    check_step_limits,
    resolve_dt_rank,
    shrink_selective,
    ssm_recomputed,
    ssm_saved,
)
from axon_core.specs.transfers.recurrent import MAMBA2_TRANSFERS

__all__ = ["SPECS", "Mamba2Options", "MambaNorm", "MambaOptions", "SectionScales"]

MambaNorm = Literal["none", "weightless", "learned"]


class MambaOptions(SelectiveOptions):
    """Mamba's mixer: causal convolution, selective scan, gate; for Falcon Mamba and Jamba with norms inside."""

    norm: MambaNorm = Field(
        "none", description="Root-mean-square norms of the step, B and C: none, or with or without learned scales."
    )
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in those norms.")


def _mamba_params(options: MambaOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    shapes = options.shapes(dims.hidden_size)
    if options.norm == "learned":
        states = (options.d_state,)
        rank = (resolve_dt_rank(options.dt_rank, dims.hidden_size),)
        shapes |= {"dt_layernorm.weight": rank, "b_layernorm.weight": states, "c_layernorm.weight": states}
    return shapes


def _mamba_saved(options: MambaOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    shapes = options.shapes(dims.hidden_size)
    found = ssm_saved(shapes, tokens, dtype, clipped=False)
    if options.norm == "none":
        return found
    return found + norm_saved(tokens, shapes["x_proj.weight"][0], 3, weight=options.norm == "learned")


def _mamba_cache(options: MambaOptions, dims: Dims) -> State:
    return options.state(dims.hidden_size)


class SectionScales(Options):
    """Factors of what the input projection gives, one for each of its five parts."""

    z: float = Field(default=1.0, gt=0, description="Factor of the gate.")
    x: float = Field(default=1.0, gt=0, description="Factor of the convolution's input.")
    B: float = Field(default=1.0, gt=0, description="Factor of what goes into the state.")
    C: float = Field(default=1.0, gt=0, description="Factor of what comes out of the state.")
    dt: float = Field(default=1.0, gt=0, description="Factor of the steps, before their bias.")


class Mamba2Options(Options):
    """Mamba-2's mixer: causal convolution, a scan with one decay per head, gate, norm."""

    num_heads: int | None = Field(
        None, gt=0, description="Number of heads; `expand * hidden_size / head_dim` unless given."
    )
    head_dim: int = Field(64, gt=0, description="Channels of each head.")
    expand: float = Field(2, gt=0, description="Channels per hidden dimension, all heads together.")
    d_state: int = Field(128, gt=0, description="States of each channel.")
    n_groups: int = Field(1, gt=0, description="Groups of heads, each with B and C of its own.")
    d_conv: int = Field(4, gt=0, description="Tokens that the convolution sees, the current one included.")
    conv_bias: bool = Field(True, description="Bias of the convolution.")
    bias: bool = Field(False, description="Bias of the input and output projections.")
    out_bias: bool | None = Field(None, description="Bias of the output projection; as `bias` unless given.")
    input_scale: float = Field(1.0, gt=0, description="Factor of what the layer reads.")
    section_scales: SectionScales = Field(
        default_factory=SectionScales.model_construct,
        description="Factors of the parts z, x, B, C and dt of the input projection; 1 unless given.",
    )
    dt_min: float = Field(0.0, ge=0, description="Smallest step; smaller ones are clipped.")
    dt_max: float | None = Field(
        None, gt=0, description="Largest step; larger ones are clipped. No limit unless given."
    )
    norm: bool = Field(True, description="Root-mean-square norm of the gated output.")
    norm_before_gate: bool = Field(False, description="Normalise before the gate, not after it.")
    norm_groups: int = Field(1, gt=0, description="Equal parts of the channels that are normalised by themselves.")
    norm_eps: float = Field(1e-5, gt=0, description="Added to the mean square in the norm.")

    @field_validator("dt_max", mode="before")
    @classmethod
    def _limit(cls, value: Any) -> Any:
        """Infinity, as published configurations write it, is no limit."""
        return None if value == inf else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_heads is not None:
            if "expand" in self.model_fields_set:
                raise ValueError("`expand` and `num_heads` both say how many heads there are: give one of them")
            self._fits(self.num_heads)
        check_step_limits(self.dt_min, self.dt_max)
        return self

    def _fits(self, heads: int) -> None:
        if heads % self.n_groups:
            raise ValueError(f"`n_groups` ({self.n_groups}) does not divide the number of heads ({heads})")
        if heads * self.head_dim % self.norm_groups:
            raise ValueError(
                f"`norm_groups` ({self.norm_groups}) does not divide the number of channels ({heads * self.head_dim})"
            )

    @property
    def output_bias(self) -> bool:
        """Whether the output projection has a bias."""
        return self.bias if self.out_bias is None else self.out_bias

    def heads(self, hidden_size: int) -> int:
        """Number of heads.

        Raises:
            ValueError: `expand` leaves no whole number of heads, or one that the groups do not divide.
        """
        if self.num_heads is not None:
            return self.num_heads
        channels = self.expand * hidden_size
        heads = int(channels // self.head_dim)
        if heads < 1 or channels != heads * self.head_dim:
            raise ValueError(
                f"`expand` ({self.expand:g}) times a hidden size of {hidden_size} is {channels:g}, "
                f"not a multiple of `head_dim` ({self.head_dim})"
            )
        self._fits(heads)
        return heads

    def widths(self, hidden_size: int) -> tuple[int, int]:
        """Channels of all heads together, and channels of the convolution: those, B and C."""
        inner = self.heads(hidden_size) * self.head_dim
        return inner, inner + 2 * self.n_groups * self.d_state


def _mamba2_params(options: Mamba2Options, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, heads = dims.hidden_size, options.heads(dims.hidden_size)
    inner, convolved = options.widths(hidden)
    projected = inner + convolved + heads
    shapes: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (projected, hidden),
        "conv1d.weight": (convolved, options.d_conv, 1),
        "out_proj.weight": (hidden, inner),
        "A_log": (heads,),
        "dt_bias": (heads,),
        "D": (heads,),
    }
    if options.norm:
        shapes["norm.weight"] = (inner,)
    if options.conv_bias:
        shapes["conv1d.bias"] = (convolved,)
    if options.bias:
        shapes["in_proj.bias"] = (projected,)
    if options.output_bias:
        shapes["out_proj.bias"] = (hidden,)
    return shapes


def _mamba2_flops(options: Mamba2Options, dims: Dims, tokens: int, context: int) -> int:
    """Of the scan, for every number of the state: decay 1, input 2, output 2."""
    inner, convolved = options.widths(dims.hidden_size)
    products = product_flops(_mamba2_params(options, dims), tokens)
    return products + convolution_flops(convolved, options.d_conv, tokens) + 5 * tokens * inner * options.d_state


def _mamba2_saved(options: Mamba2Options, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The convolution, the steps, the scan's inputs and states, and the gated norm, mostly in float32."""
    heads, whole = options.heads(dims.hidden_size), dtype == "float32"
    inner, convolved = options.widths(dims.hidden_size)
    found = each(tokens, input=dims.hidden_size, output=inner)
    found += convolution_saved(tokens, convolved, options.d_conv, dtype)
    found += in_float32(tokens, sigmoid=convolved, steps=3 * heads, driven=inner)
    if whole:
        found += each(tokens, projected=inner + convolved + heads, activated=convolved)
    else:
        found += in_float32(tokens, driving=inner, skipped=inner, cast=convolved - inner)
    if options.norm:
        found += in_float32(tokens, gate_sigmoid=inner, gate=inner, scanned=inner, gated=inner, unit=inner)
        found += () if whole else in_float32(tokens, gate_input=inner)
    else:
        found += each(tokens, gate_sigmoid=inner, gate=inner, scanned=inner)
        found += () if whole else each(tokens, projected=inner + convolved + heads)
    copied = convolved - inner + heads if whole else 0
    return found + ssd_saved(tokens, heads, options.head_dim, options.d_state, inputs=copied)


def _mamba2_cache(options: Mamba2Options, dims: Dims) -> State:
    state = (options.heads(dims.hidden_size), options.head_dim, options.d_state)
    convolved = options.widths(dims.hidden_size)[1]
    return State((Array("conv", (options.d_conv - 1, convolved)), Array("ssm", state, "float32")))


def _shrink_mamba2(options: Mamba2Options, dims: Dims) -> dict[str, Any]:
    """Four heads of eight channels in at most two groups; `d_conv` stays, for it decides what the cache looks like."""
    small = {name: value for name, value in written(options).items() if name != "expand"}
    sizes = {"num_heads": 4, "head_dim": 8, "d_state": 4}
    return small | limited(options, {"n_groups": 2, "norm_groups": 2, "d_conv": 4}) | sizes


SPECS: Final = (
    ComponentSpec(
        name="mamba",
        kind="layer",
        options=MambaOptions,
        module="axon_core.mamba:Mamba.from_options",
        learning=SSM,
        summary="Mamba's mixer, also with the norms of Falcon Mamba and Jamba.",
        source='Gu and Dao 2023, "Mamba" (arXiv:2312.00752)',
        cache=_mamba_cache,
        params=_mamba_params,
        flops=lambda options, dims, tokens, context: options.flops(dims.hidden_size, tokens),
        saved=_mamba_saved,
        recomputed=lambda options, dims, batch, tokens: ssm_recomputed(options.shapes(dims.hidden_size), batch, tokens),
        float32=("A_log", "D"),
        split=mamba_split,
        shrink=shrink_selective,
        examples=(
            {},
            {"d_state": 4, "d_conv": 2, "expand": 1.5, "norm": "learned"},
            {"intermediate_size": 24, "dt_rank": 3, "bias": True, "conv_bias": False, "norm": "weightless"},
        ),
    ),
    ComponentSpec(
        name="mamba2",
        kind="layer",
        options=Mamba2Options,
        module="axon_core.mamba2:Mamba2.from_options",
        learning=learned(("out_proj.weight",), own=("conv1d.weight",)),
        summary="Mamba-2's mixer: a state space with one decay per head, computed as matrix products.",
        source='Dao and Gu 2024, "Transformers are SSMs" (arXiv:2405.21060)',
        cache=_mamba2_cache,
        params=_mamba2_params,
        flops=_mamba2_flops,
        saved=_mamba2_saved,
        float32=("A_log", "dt_bias", "D"),
        transfers=MAMBA2_TRANSFERS,
        split=mamba2_split,
        shrink=_shrink_mamba2,
        examples=(
            {"head_dim": 16, "d_state": 8},
            {"num_heads": 6, "head_dim": 8, "d_state": 4, "n_groups": 2, "norm_groups": 2, "d_conv": 2},
            {"num_heads": 4, "head_dim": 8, "d_state": 4, "bias": True, "conv_bias": False, "norm": False},
            {"expand": 1, "head_dim": 8, "d_state": 4, "dt_min": 1e-3, "dt_max": 0.1, "norm_before_gate": True},
            {
                "num_heads": 4,
                "head_dim": 8,
                "d_state": 4,
                "out_bias": True,
                "input_scale": 1.25,
                "section_scales": {"z": 0.5, "B": 0.25, "dt": 2.0},
            },
        ),
    ),
)
