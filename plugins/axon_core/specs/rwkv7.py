"""The two layers of RWKV-7: options and records."""

from math import gcd, prod
from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Constant, Dims, Learning, Normal, Options, State, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import activation_saved, each, in_float32, states_saved
from axon_core.specs._segments import delta_chunk, delta_chunks
from axon_core.specs._small import limited
from axon_core.specs.splits.delta_rules import channel_mix_split, time_mix_split
from axon_core.specs.transfers.rwkv7 import RWKV7_TRANSFERS

__all__ = ["SPECS", "RWKV7ChannelMixOptions", "RWKV7TimeMixOptions"]


class RWKV7TimeMixOptions(Options):
    """RWKV-7's time mixing; each head has a matrix as state."""

    num_heads: int | None = Field(
        None, gt=0, description="Number of heads; `hidden_size / head_dim` unless given, as in the published models."
    )
    head_dim: int = Field(64, gt=0, description="Width of a head.")
    decay_low_rank_dim: int = Field(64, gt=0, description="Rank of the projection that makes the decays.")
    a_low_rank_dim: int = Field(64, gt=0, description="Rank of the projection that makes the in-context rates.")
    v_low_rank_dim: int = Field(
        32, gt=0, description="Rank of the projection that mixes in the values of `value_from`; not used without it."
    )
    gate_low_rank_dim: int = Field(128, gt=0, description="Rank of the projection that makes the output's gate.")
    norm_eps: float = Field(64e-5, gt=0, description="Added to the variance by the norm of each head's output.")
    value_from: str | None = Field(
        None,
        description="Component whose values are mixed into the own ones, from the nearest earlier layer that uses it.",
    )

    def heads(self, hidden_size: int) -> int:
        """Number of heads.

        Raises:
            ValueError: `head_dim` does not divide the hidden size, and there is no `num_heads`.
        """
        if self.num_heads is not None:
            return self.num_heads
        if hidden_size % self.head_dim:
            raise ValueError(f"`hidden_size` ({hidden_size}) is not a multiple of `head_dim` ({self.head_dim})")
        return hidden_size // self.head_dim


class RWKV7ChannelMixOptions(Options):
    """RWKV-7's channel mixing."""

    intermediate_size: int = Field(gt=0, description="Width between the matrices.")


def _time_params(options: RWKV7TimeMixOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden = dims.hidden_size
    heads = (options.heads(hidden), options.head_dim)
    inner = prod(heads)
    ranks = {"w": options.decay_low_rank_dim, "a": options.a_low_rank_dim, "g": options.gate_low_rank_dim}
    if options.value_from is not None:
        ranks["v"] = options.v_low_rank_dim
    found: dict[str, tuple[int, ...]] = {f"x_{name}": (1, 1, hidden) for name in "rwkvag"}
    found |= {f"{name}_proj.weight": (inner, hidden) for name in "rkv"} | {"o_proj.weight": (hidden, inner)}
    for name, rank in ranks.items():
        found[f"{name}_lora.lora.0.weight"] = (rank, hidden)
        found[f"{name}_lora.lora.2.weight"] = (inner, rank)
        if name != "g":
            found[f"{name}_lora.lora.2.bias"] = (inner,)
    return found | dict.fromkeys(("k_k", "k_a", "r_k", "g_norm.weight", "g_norm.bias"), heads)


def _time_flops(options: RWKV7TimeMixOptions, dims: Dims, tokens: int, context: int) -> int:
    """For every number of the state: decay 1, recall 2, removal 2, value times key 2, output 2."""
    scanned = 9 * tokens * options.heads(dims.hidden_size) * options.head_dim**2
    return product_flops(_time_params(options, dims), tokens) + scanned


def _time_saved(options: RWKV7TimeMixOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The six mixed inputs, the low ranks, and what heads do in float32; of the recurrence its inputs and states."""
    hidden, heads, width = dims.hidden_size, options.heads(dims.hidden_size), options.head_dim
    inner = heads * width
    found = each(tokens, step=hidden, output=inner)
    found += each(tokens, **{f"mixed_{name}": hidden for name in "rwkvag"})
    ranks = 2 * options.decay_low_rank_dim + options.a_low_rank_dim + options.gate_low_rank_dim
    found += each(tokens, ranks=ranks)
    # Receptances, decays, keys, values and rates on their way into the recurrence, its output, and the norm's; where a
    # chunk is not full, copies of all six inputs take the place of three.
    chunk = delta_chunk(tokens)
    full = tokens % chunk == 0
    found += tuple(Array(f"heads_{number}", (tokens, inner), "float32") for number in range(18 if full else 15))
    found += () if full else in_float32(tokens + -tokens % chunk, filled_up=6 * inner)
    found += in_float32(tokens, lengths=5 * heads)
    if options.value_from is not None:
        found += each(tokens, value_rank=options.v_low_rank_dim, mixed_value=2 * inner)
    largest = heads * max(4 * chunk * chunk, chunk * 2 * width, width * 2 * width)
    return found + states_saved(tokens, chunk * delta_chunks(largest), inner * width)


def _time_accepts(options: RWKV7TimeMixOptions, source: Any, dims: Dims) -> str | None:
    """Why the values of `source` cannot be mixed in, or None."""
    if not isinstance(source, RWKV7TimeMixOptions):
        return None
    own, read = (each.heads(dims.hidden_size) * each.head_dim for each in (options, source))
    return None if own == read else f"its values are {read} wide, not {own}"


def _channel_saved(options: RWKV7ChannelMixOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    found = each(tokens, step=dims.hidden_size, mixed=dims.hidden_size)
    return found + activation_saved(tokens, options.intermediate_size, "relu2", gated=False)


def _time_cache(options: RWKV7TimeMixOptions, dims: Dims) -> State:
    width = options.head_dim
    return State(
        (
            Array("shift", (1, dims.hidden_size)),
            Array("wkv", (options.heads(dims.hidden_size), width, width), "float32"),
        )
    )


def _shrink(options: RWKV7TimeMixOptions, dims: Dims) -> dict[str, Any]:
    """Low ranks, few heads, and a width of theirs that divides the hidden size if the written one does."""
    ranks = {f"{name}_low_rank_dim": 8 for name in ("decay", "a", "v", "gate")}
    return written(options) | limited(options, {"num_heads": 4}) | ranks | {"head_dim": gcd(options.head_dim, 16)}


def _channel_params(options: RWKV7ChannelMixOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, inner = dims.hidden_size, options.intermediate_size
    return {"x_k": (hidden,), "key.weight": (inner, hidden), "value.weight": (hidden, inner)}


def _time_mix_initial(options: RWKV7TimeMixOptions, dims: Dims) -> dict[str, Normal | Constant | None]:
    """As in the paper's code: the first matrices of low-rank pairs are zeros, the second ones a tenth as large."""
    return {
        "*_lora.lora.0.weight": Constant(0.0),
        "*_lora.lora.2.weight": Normal(0.1 / dims.hidden_size**0.5),
        "o_proj.weight": Normal(residual=True),
        "*_proj.weight": Normal(),
    }


#: Shares, keys and bonuses have several axes, but are vectors; the bias of the decays learns twice as fast.
_TIME_MIX: Final = Learning(
    undecayed=("x_?", "k_k", "k_a", "r_k", "g_norm.weight"),
    adamw=("*_lora.*",),
    rates={"w_lora.lora.2.bias": 2.0},
    initial=_time_mix_initial,
)

SPECS: Final = (
    ComponentSpec(
        name="rwkv7_time_mix",
        kind="layer",
        options=RWKV7TimeMixOptions,
        module="axon_core.rwkv7:RWKV7TimeMix.from_options",
        learning=_TIME_MIX,
        summary="RWKV-7's time mixing: token shift, generalised delta rule with a decay for every channel, gate.",
        source='Peng et al. 2025, "RWKV-7 Goose" (arXiv:2503.14456)',
        cache=_time_cache,
        params=_time_params,
        flops=_time_flops,
        saved=_time_saved,
        reads={"value": "value_from"},
        writes=("value",),
        accepts=_time_accepts,
        unquantized=("g_norm",),  # a norm, although its weight has two axes
        split=time_mix_split,
        transfers=RWKV7_TRANSFERS,
        shrink=_shrink,
        examples=(
            {"head_dim": 16, "decay_low_rank_dim": 8, "a_low_rank_dim": 8, "gate_low_rank_dim": 16},
            {"head_dim": 32},
            {"head_dim": 8, "norm_eps": 1e-3},
            {"num_heads": 4, "head_dim": 8, "gate_low_rank_dim": 16},
        ),
    ),
    ComponentSpec(
        name="rwkv7_channel_mix",
        kind="layer",
        options=RWKV7ChannelMixOptions,
        module="axon_core.rwkv7:RWKV7ChannelMix.from_options",
        learning=learned(("value.weight",)),
        summary="RWKV-7's feed-forward layer: token shift, two matrices, squared relu.",
        source='Peng et al. 2025, "RWKV-7 Goose" (arXiv:2503.14456)',
        cache=lambda options, dims: State((Array("shift", (1, dims.hidden_size)),)),
        params=_channel_params,
        flops=lambda options, dims, tokens, context: product_flops(_channel_params(options, dims), tokens),
        saved=_channel_saved,
        split=channel_mix_split,
        shrink=lambda options, dims: written(options) | limited(options, {"intermediate_size": 96}),
        examples=({"intermediate_size": 96}, {"intermediate_size": 40}),
    ),
)
