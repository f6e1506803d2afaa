"""Gated delta networks: options and record."""

from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import convolution_saved, each, in_float32, states_saved
from axon_core.specs._segments import delta_chunk, delta_chunks
from axon_core.specs._small import limited
from axon_core.specs.splits.delta_rules import gated_delta_split
from axon_core.specs.transfers.recurrent import DELTA_TRANSFERS

__all__ = ["SPECS", "GatedDeltaNetOptions"]


class GatedDeltaNetOptions(Options):
    """Linear attention by the gated delta rule, as in Qwen3-Next."""

    num_k_heads: int = Field(gt=0, description="Number of query heads, and of key heads.")
    num_v_heads: int | None = Field(
        default=None,
        gt=0,
        description="Number of value heads, a multiple of `num_k_heads`; as many as those unless given.",
    )
    head_k_dim: int = Field(default=128, gt=0, description="Width of a query and of a key.")
    head_v_dim: int | None = Field(default=None, gt=0, description="Width of a value; `head_k_dim` unless given.")
    d_conv: int = Field(default=4, gt=0, description="Tokens that the convolution sees, the current one included.")
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square by the norm of the output.")
    neg_eigval: bool = Field(
        default=False,
        description="Write strengths (beta) up to 2 instead of 1, so that transitions may have negative eigenvalues.",
    )
    separate: bool = Field(
        default=False,
        description="Queries, keys and values have projections and convolutions of their own (OLMo Hybrid); by default "
        "one for all three.",
    )
    gate_activation: Literal["silu", "sigmoid"] = Field(
        default="silu", description="Activation of the gate that multiplies the normalised output."
    )

    @field_validator("num_v_heads")
    @classmethod
    def _grouped(cls, value: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("num_k_heads")
        if value and heads and value % heads:
            raise ValueError(f"`num_v_heads` ({value}) is not a multiple of `num_k_heads` ({heads})")
        return value

    @property
    def widths(self) -> dict[str, int]:
        """Channels of each convolution, by the beginning of its name."""
        key_heads, key_dim, heads, value_dim = self.head_shapes()
        keys, values = key_heads * key_dim, heads * value_dim
        return {"q_": keys, "k_": keys, "v_": values} if self.separate else {"": 2 * keys + values}

    def head_shapes(self) -> tuple[int, int, int, int]:
        """Number and width of the key heads, number and width of the value heads."""
        value_heads, value_dim = self.num_v_heads or self.num_k_heads, self.head_v_dim or self.head_k_dim
        return self.num_k_heads, self.head_k_dim, value_heads, value_dim


def _params(options: GatedDeltaNetOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    _, _, heads, value_dim = options.head_shapes()
    hidden, values = dims.hidden_size, heads * value_dim
    names = {name: f"{name}proj" if name else "in_proj_qkv" for name in options.widths}
    projections: dict[str, tuple[int, ...]] = {
        f"{names[name]}.weight": (channels, hidden) for name, channels in options.widths.items()
    }
    convolutions = {f"{name}conv1d.weight": (channels, options.d_conv, 1) for name, channels in options.widths.items()}
    return {
        **projections,
        **convolutions,
        "in_proj_z.weight": (values, hidden),
        "in_proj_b.weight": (heads, hidden),
        "in_proj_a.weight": (heads, hidden),
        "A_log": (heads,),
        "dt_bias": (heads,),
        "norm.weight": (value_dim,),
        "out_proj.weight": (hidden, values),
    }


def _flops(options: GatedDeltaNetOptions, dims: Dims, tokens: int, context: int) -> int:
    """For every number of the state: decay 1, recall 2, correction 2, output 2."""
    key_heads, key_dim, heads, value_dim = options.head_shapes()
    convolved = convolution_flops(2 * key_heads * key_dim + heads * value_dim, options.d_conv, tokens)
    return product_flops(_params(options, dims), tokens) + convolved + 7 * tokens * heads * key_dim * value_dim


def _saved(options: GatedDeltaNetOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The convolution, keys of length one, and the gated norm, mostly in float32; of the rule its inputs and states."""
    key_heads, key_dim, heads, value_dim = options.head_shapes()
    keys, values = key_heads * key_dim, heads * value_dim
    found = each(tokens, input=dims.hidden_size, output=values)
    found += convolution_saved(tokens, 2 * keys + values, options.d_conv, dtype)
    found += in_float32(tokens, sigmoid=2 * keys + values, activated=2 * keys + values)
    found += in_float32(tokens, keys=2 * keys, queries=keys, decays=4 * heads, lengths=4 * key_heads + 2 * heads)
    found += in_float32(tokens, recalled=values, unit=values, gate_sigmoid=values, normed=values)
    if options.gate_activation == "silu":
        found += in_float32(tokens, gate=values, gate_input=values)
    # Chunks of 32 tokens, or 64 on a GPU.
    chunk = delta_chunk(tokens)
    if tokens % chunk:  # copies with the tokens that the last chunk lacks
        found += in_float32(tokens + -tokens % chunk, filled_up=keys + values)
    segment = chunk * delta_chunks(heads * chunk * max(chunk, key_dim, value_dim))
    return found + states_saved(tokens, segment, values * key_dim)


def _cache(options: GatedDeltaNetOptions, dims: Dims) -> State:
    _, key_dim, heads, value_dim = options.head_shapes()
    before = (Array(f"{name}conv", (options.d_conv - 1, width)) for name, width in options.widths.items())
    return State((*before, Array("delta", (heads, value_dim, key_dim), "float32")))


def _shrink(options: GatedDeltaNetOptions, dims: Dims) -> dict[str, Any]:
    """One or two key heads, each with one or two value heads; `d_conv` stays, for it decides what the cache holds."""
    small = written(options) | limited(options, {"d_conv": 4}) | {"head_k_dim": 16}
    key_heads, heads = options.num_k_heads, options.num_v_heads
    small["num_k_heads"] = min(key_heads, 2)
    if heads is not None:
        small["num_v_heads"] = small["num_k_heads"] * min(heads // key_heads, 2)
    if options.head_v_dim is not None:
        small["head_v_dim"] = 16 if options.head_v_dim == options.head_k_dim else 32
    return small


SPECS: Final = (
    ComponentSpec(
        name="gated_delta_net",
        module_name="linear_attn",
        kind="layer",
        options=GatedDeltaNetOptions,
        module="axon_core.gated_delta_net:GatedDeltaNet.from_options",
        learning=learned(("out_proj.weight",), own=("*conv1d.weight",), adamw=("in_proj_a.weight", "in_proj_b.weight")),
        summary="Linear attention by the gated delta rule: causal convolution, self-correcting state, gate.",
        source='Yang et al. 2024, "Gated Delta Networks" (arXiv:2412.06464)',
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        float32=("A_log", "dt_bias"),
        transfers=DELTA_TRANSFERS,
        split=gated_delta_split,
        shrink=_shrink,
        examples=(
            {"num_k_heads": 2, "head_k_dim": 16},
            {"num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 16, "head_v_dim": 32},
            {"num_k_heads": 1, "num_v_heads": 3, "head_k_dim": 32, "d_conv": 1, "norm_eps": 1e-5},
            {"num_k_heads": 2, "head_k_dim": 24, "d_conv": 2},
            {"num_k_heads": 2, "head_k_dim": 16, "neg_eigval": True},
            {"num_k_heads": 2, "head_k_dim": 16, "gate_activation": "sigmoid"},
            {"num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 16, "head_v_dim": 24, "separate": True},
        ),
    ),
)
