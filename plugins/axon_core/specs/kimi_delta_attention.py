"""Kimi delta attention: options and record."""

from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import convolution_saved, each, in_float32, states_saved
from axon_core.specs._segments import CHANNELS_RECOMPUTED, delta_chunk, delta_chunks
from axon_core.specs._small import limited
from axon_core.specs.splits.delta_rules import kimi_split
from axon_core.specs.transfers.recurrent import KIMI_TRANSFERS

__all__ = ["SPECS", "KimiDeltaAttentionOptions"]


class FullRankOptions(Options):
    """Which projections of the input are one matrix instead of the product of two narrow ones."""

    decay: bool = Field(default=False, description="`f_proj`, which makes the decays.")
    gate: bool = Field(default=False, description="`g_proj`, which makes the gate of the output.")


def _both(value: Any) -> Any:
    return {"decay": value, "gate": value} if isinstance(value, bool) else value


FullRank = Annotated[FullRankOptions, BeforeValidator(_both, json_schema_input_type=bool | FullRankOptions)]


class KimiDeltaAttentionOptions(Options):
    """Linear attention by the delta rule with a decay for every channel of the key, as in Kimi Linear."""

    num_heads: int = Field(gt=0, description="Number of heads.")
    head_dim: int = Field(default=128, gt=0, description="Width of a query, of a key and of a value.")
    d_conv: int = Field(default=4, gt=0, description="Tokens that the convolutions see, the current one included.")
    low_rank_dim: int | None = Field(
        default=None,
        gt=0,
        description="Rank of the projections that make the decays and the output's gate; `head_dim` unless given.",
    )
    full_rank: FullRank = Field(
        default=FullRankOptions.model_construct(),
        description="Projections of full rank: true, false, or a mapping of decay, gate.",
    )
    lower_bound: float | None = Field(
        default=None,
        lt=0,
        description="Least logarithm of a decay, `lower_bound * sigmoid(exp(A_log) * (f + dt_bias))`, e.g. -5; "
        "`-exp(A_log) * softplus(f + dt_bias)`, which has no bound, unless given.",
    )
    neg_eigval: bool = Field(
        default=False,
        description="Write strengths (beta) up to 2 instead of 1, so that transitions may have negative eigenvalues.",
    )
    norm_eps: float = Field(default=1e-5, gt=0, description="Added to the mean square by the norm of the output.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low_rank_dim is not None and self.full_rank.decay and self.full_rank.gate:
            raise ValueError("`low_rank_dim` is the rank of projections that `full_rank` does without")
        return self

    @property
    def rank(self) -> int:
        """Rank of the projections to decays and gate that are products of two."""
        return self.low_rank_dim or self.head_dim

    @property
    def low_rank(self) -> str:
        """Letters of the projections that are products of two: f for the decays, g for the gate."""
        return "f" * (not self.full_rank.decay) + "g" * (not self.full_rank.gate)


def _params(options: KimiDeltaAttentionOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, heads, width = dims.hidden_size, options.num_heads, options.head_dim
    inner, rank = heads * width, options.rank
    shapes: dict[str, tuple[int, ...]] = {f"{name}_proj.weight": (inner, hidden) for name in "qkv"}
    shapes |= {f"{name}_conv.conv.weight": (inner, options.d_conv, 1) for name in "qkv"}
    for name in "fg":
        if name in options.low_rank:
            shapes |= {f"{name}_a_proj.weight": (rank, hidden), f"{name}_b_proj.weight": (inner, rank)}
        else:
            shapes[f"{name}_proj.weight"] = (inner, hidden)
    return shapes | {
        "b_proj.weight": (heads, hidden),
        "A_log": (1, 1, heads, 1),
        "dt_bias": (inner,),
        "o_norm.weight": (width,),
        "o_proj.weight": (hidden, inner),
    }


def _flops(options: KimiDeltaAttentionOptions, dims: Dims, tokens: int, context: int) -> int:
    """For every number of the state: decay 1, recall 2, correction 2, output 2."""
    inner = options.num_heads * options.head_dim
    convolved = convolution_flops(3 * inner, options.d_conv, tokens)
    return product_flops(_params(options, dims), tokens) + convolved + 7 * tokens * inner * options.head_dim


def _saved(options: KimiDeltaAttentionOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The convolutions, keys of length one, decays and the gated norm in float32; of the rule its inputs and states."""
    heads, width = options.num_heads, options.head_dim
    inner = heads * width
    found = each(tokens, input=dims.hidden_size, output=inner, ranks=len(options.low_rank) * options.rank)
    found += convolution_saved(tokens, 3 * inner, options.d_conv, dtype)
    found += in_float32(tokens, sigmoid=3 * inner, activated=3 * inner, keys=inner, queries=inner)
    found += in_float32(tokens, decays=3 * inner, rates=2 * heads, lengths=6 * heads)
    found += in_float32(tokens, read=inner, unit=inner, gate=inner, normed=inner)
    # Chunks of 32 tokens, or 64 on a GPU.
    chunk = delta_chunk(tokens)
    if tokens % chunk:  # copies with the tokens that the last chunk lacks
        found += in_float32(tokens + -tokens % chunk, filled_up=3 * inner // 2)
    segment = chunk * delta_chunks(heads * chunk * max(chunk, width))
    return found + states_saved(tokens, segment, inner * width)


def _recomputed(options: KimiDeltaAttentionOptions, dims: Dims, batch: int, tokens: int) -> int:
    """Keys and queries decayed to every cut of every chunk of a segment, and the products made of them."""
    chunk = delta_chunk(tokens)
    numbers = batch * options.num_heads * chunk * max(chunk, options.head_dim)
    return CHANNELS_RECOMPUTED * 4 * numbers * min(-(-tokens // chunk), delta_chunks(numbers))


def _cache(options: KimiDeltaAttentionOptions, dims: Dims) -> State:
    heads, width = options.num_heads, options.head_dim
    before = (options.d_conv - 1, heads * width)
    return State(
        (*(Array(f"{name}_conv", before) for name in "qkv"), Array("delta", (heads, width, width), "float32")),
    )


def _shrink(options: KimiDeltaAttentionOptions, dims: Dims) -> dict[str, Any]:
    """At most two heads of 16; `d_conv` stays, for it decides what the cache holds."""
    rank = {"low_rank_dim": 8} if options.low_rank_dim is not None else {}
    return written(options) | limited(options, {"num_heads": 2, "d_conv": 4}) | {"head_dim": 16} | rank


SPECS: Final = (
    ComponentSpec(
        name="kimi_delta_attention",
        kind="layer",
        options=KimiDeltaAttentionOptions,
        module="axon_core.kimi_delta_attention:KimiDeltaAttention.from_options",
        learning=learned(
            ("o_proj.weight",), own=("*_conv.conv.weight",), undecayed=("A_log",), adamw=("b_proj.weight",)
        ),
        summary="Kimi Linear's linear attention: delta rule with a decay for every channel, convolutions, gate.",
        source='Kimi Team 2025, "Kimi Linear" (arXiv:2510.26692)',
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        recomputed=_recomputed,
        float32=("A_log", "dt_bias"),
        transfers=KIMI_TRANSFERS,
        split=kimi_split,
        shrink=_shrink,
        examples=(
            {"num_heads": 2, "head_dim": 16},
            {"num_heads": 3, "head_dim": 16, "d_conv": 1, "norm_eps": 1e-6},
            {"num_heads": 2, "head_dim": 24, "d_conv": 2, "low_rank_dim": 8},
            {"num_heads": 2, "head_dim": 16, "full_rank": True, "lower_bound": -5.0},
            {"num_heads": 2, "head_dim": 16, "full_rank": {"gate": True}, "neg_eigval": True},
        ),
    ),
)
