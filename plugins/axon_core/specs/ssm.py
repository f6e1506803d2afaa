"""The selective state space layer: options and record."""

from collections.abc import Mapping
from math import ceil, prod
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import SSM
from axon_core.specs._saved import convolution_saved, each, in_float32, states_saved
from axon_core.specs._segments import RECOMPUTED, scan_tokens
from axon_core.specs._small import limited
from axon_core.specs.splits.state_spaces import mamba_split

__all__ = [
    "SPECS",
    "SSMOptions",
    "SelectiveOptions",
    "check_step_limits",
    "resolve_dt_rank",
    "shrink_selective",
    "ssm_flops",
    "ssm_params",
    "ssm_recomputed",
    "ssm_saved",
    "ssm_state",
]


Rank = Annotated[int, Field(gt=0)] | Literal["auto"]
_RANK: Final = 'Rank of the projection to step sizes: a number, or "auto" for a sixteenth of the hidden size.'


class SelectiveOptions(Options):
    """Options of all layers around the selective scan."""

    d_state: int = Field(16, gt=0, description="States of each channel.")
    d_conv: int = Field(4, gt=0, description="Tokens that the convolution sees, the current one included.")
    expand: float = Field(2, gt=0, description="Channels per hidden dimension; the product is rounded down.")
    intermediate_size: int | None = Field(
        None, gt=0, description="Number of channels; `expand * hidden_size` unless given."
    )
    dt_rank: Rank = Field("auto", description=_RANK)
    conv_bias: bool = Field(True, description="Bias of the convolution.")
    bias: bool = Field(False, description="Bias of the input and output projections.")

    # Before the union is tried, for pydantic would name each of its members in the place of the fault.
    @field_validator("dt_rank", mode="before")
    @classmethod
    def _rank(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not whole and value != "auto":
            raise ValueError('`dt_rank` is a whole number above 0, or "auto"')
        return value

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.intermediate_size is not None and "expand" in self.model_fields_set:
            raise ValueError("`expand` and `intermediate_size` both say how many channels there are: give one of them")
        return self

    def channels(self, hidden_size: int) -> int:
        """Number of channels.

        Raises:
            ValueError: `expand` leaves not even one.
        """
        channels = self.intermediate_size or int(self.expand * hidden_size)
        if channels < 1:
            raise ValueError(f"`expand` ({self.expand:g}) leaves no channel of a hidden size of {hidden_size}")
        return channels

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters."""
        rank, channels = resolve_dt_rank(self.dt_rank, hidden_size), self.channels(hidden_size)
        return ssm_params(
            hidden_size, channels, self.d_state, self.d_conv, rank, conv_bias=self.conv_bias, bias=self.bias
        )

    def flops(self, hidden_size: int, tokens: int) -> int:
        """Floating-point operations for this number of tokens."""
        return ssm_flops(self.shapes(hidden_size), tokens)

    def state(self, hidden_size: int) -> State:
        """What the layer keeps."""
        return ssm_state(self.channels(hidden_size), self.d_state, self.d_conv)


class SSMOptions(SelectiveOptions):
    """Selective state space layer with a causal convolution before and a gate after it (Mamba)."""

    dt_rank: Rank = Field(1, description=_RANK)
    dt_min: float = Field(1e-4, gt=0, description="Smallest step; smaller ones are clipped.")
    dt_max: float = Field(100.0, gt=0, description="Largest step; larger ones are clipped.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_step_limits(self.dt_min, self.dt_max)
        return self


def check_step_limits(least: float, most: float | None) -> None:
    """Refuse limits of step sizes that leave none.

    Raises:
        ValueError: In plain words.
    """
    if most is not None and least > most:
        raise ValueError(f"`dt_min` ({least:g}) is larger than `dt_max` ({most:g})")


def resolve_dt_rank(rank: int | Literal["auto"], hidden_size: int) -> int:
    """The rank as a number; "auto" is a sixteenth of the hidden size, rounded up."""
    return ceil(hidden_size / 16) if rank == "auto" else rank


def ssm_params(
    hidden: int, channels: int, d_state: int, d_conv: int, rank: int, *, conv_bias: bool = True, bias: bool = False
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.ssm.AxonSSM`."""
    shapes: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (2 * channels, hidden),
        "conv1d.weight": (channels, d_conv, 1),
        "x_proj.weight": (2 * d_state + rank, channels),
        "dt_proj.weight": (channels, rank),
        "dt_proj.bias": (channels,),
        "out_proj.weight": (hidden, channels),
        "A_log": (channels, d_state),
        "D": (channels,),
    }
    if conv_bias:
        shapes["conv1d.bias"] = (channels,)
    if bias:
        shapes |= {"in_proj.bias": (2 * channels,), "out_proj.bias": (hidden,)}
    return shapes


def ssm_flops(shapes: Mapping[str, tuple[int, ...]], tokens: int) -> int:
    """Products, convolution and scan; of the scan, for every number of the state: decay 1, input 2, output 2."""
    channels, d_conv, _ = shapes["conv1d.weight"]
    scanned = 5 * tokens * prod(shapes["A_log"])
    # `A_log` is named otherwise than a matrix, and the taps of the convolution have three axes.
    return product_flops(shapes, tokens) + convolution_flops(channels, d_conv, tokens) + scanned


def ssm_state(channels: int, d_state: int, d_conv: int) -> State:
    """What the layer keeps: the last inputs of the convolution, and the state in float32."""
    return State((Array("conv", (d_conv - 1, channels)), Array("ssm", (d_state, channels), "float32")))


def ssm_saved(shapes: Mapping[str, tuple[int, ...]], tokens: int, dtype: str, *, clipped: bool) -> tuple[Array, ...]:
    """Between the projections: the convolution, the steps and the gate; of the scan its inputs and states.

    Args:
        shapes: Of `ssm_params`.
        tokens: Length of the sequence.
        dtype: Of the activations; what the scan takes is cast to float32.
        clipped: Whether steps have bounds, which keep what they bound.
    """
    channels, taps, _ = shapes["conv1d.weight"]
    hidden, states = shapes["out_proj.weight"][0], shapes["A_log"][1]
    found = convolution_saved(tokens, channels, taps, dtype)
    found += in_float32(tokens, sigmoid=channels, step_input=channels, step=channels, driven=channels)
    found += in_float32(tokens, at_least=channels, at_most=channels) if clipped else ()
    found += each(tokens, input=hidden, projected=2 * channels, activated=channels, read=shapes["x_proj.weight"][0])
    found += each(tokens, scanned=channels, gate_sigmoid=channels, gate=channels, gated=channels)
    if dtype != "float32":
        found += in_float32(tokens, driving=channels, skipped=channels, cast=2 * states)
    return found + states_saved(tokens, scan_tokens(channels * states), channels * states)


def ssm_recomputed(shapes: Mapping[str, tuple[int, ...]], batch: int, tokens: int) -> int:
    """What the backward pass of a segment of the scan holds: states of all its tokens, many times."""
    elements = batch * prod(shapes["A_log"])
    return RECOMPUTED * 4 * elements * min(tokens, scan_tokens(elements))


def _saved(options: SSMOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    return ssm_saved(options.shapes(dims.hidden_size), tokens, dtype, clipped=True)


def _params(options: SSMOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    return options.shapes(dims.hidden_size)


def _cache(options: SSMOptions, dims: Dims) -> State:
    return options.state(dims.hidden_size)


def shrink_selective(options: SelectiveOptions, dims: Dims) -> dict[str, Any]:
    """Small sizes, same structure; `d_conv` stays, for it decides what the cache looks like."""
    limits = {"d_state": 4, "d_conv": 4, "intermediate_size": 48, "expand": 3, "dt_rank": 2}
    return written(options) | limited(options, limits)


SPECS: Final = (
    ComponentSpec(
        name="axon_ssm",
        kind="layer",
        options=SSMOptions,
        module="axon_core.ssm:AxonSSM.from_options",
        learning=SSM,
        summary="Selective state space layer: causal convolution, input-dependent diagonal recurrence, gate.",
        source='Gu and Dao 2023, "Mamba" (arXiv:2312.00752)',
        cache=_cache,
        params=_params,
        flops=lambda options, dims, tokens, context: options.flops(dims.hidden_size, tokens),
        saved=_saved,
        recomputed=lambda options, dims, batch, tokens: ssm_recomputed(options.shapes(dims.hidden_size), batch, tokens),
        float32=("A_log", "D"),
        split=mamba_split,
        shrink=shrink_selective,
        examples=(
            {},
            {"d_state": 4, "d_conv": 2, "expand": 3},
            {"d_conv": 1, "conv_bias": False, "expand": 1.5},
            {"intermediate_size": 24, "dt_rank": "auto", "bias": True},
            {"dt_rank": 4, "dt_min": 1e-3, "dt_max": 0.1},
        ),
    ),
)
