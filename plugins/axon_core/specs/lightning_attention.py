"""Lightning attention: options and record."""

from collections.abc import Mapping
from math import gcd
from typing import Any, Final, Literal

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import product_flops
from axon_core.specs._heads import QKNorm
from axon_core.specs._learning import learned
from axon_core.specs._rope import Rope
from axon_core.specs._saved import each, in_float32, norm_saved, ssd_saved
from axon_core.specs._segments import ssd_cut
from axon_core.specs._small import limited, small_rope
from axon_core.specs.splits.recurrent import lightning_split
from axon_core.specs.transfers.recurrent import LIGHTNING_TRANSFERS

__all__ = ["SPECS", "LightningAttentionOptions"]


class LightningAttentionOptions(Options):
    """Linear attention with a fixed decay for every head, as in MiniMax-01 and Ring-linear."""

    num_heads: int = Field(gt=0, description="Number of heads.")
    head_dim: int | None = Field(
        default=None, gt=0, description="Width of a head; `hidden_size // num_heads` unless given."
    )
    slope_scale: float = Field(
        default=1.0,
        ge=0,
        description="Factor of the heads' slopes, by which each forgets. A formula of the layer makes it fall with the "
        "depth, e.g. `=1 - (i - 1) / (num_layers - 1) + 1e-5` for Ring-linear.",
    )
    rope: Rope = Field(
        default=None,
        description="Rotary position embedding: true, or a mapping; none unless given. It needs a layer of the stack "
        "that keeps keys and values, for recurrent caches count no tokens.",
    )
    qk_norm: QKNorm = Field(
        default=None,
        description="Norm of queries and keys: true for an RMS norm of each head before rope, or a mapping.",
    )
    activation: Literal["none", "silu"] = Field(
        default="none", description="What queries, keys and values pass through; silu in MiniMax-01."
    )
    scale: float | None = Field(
        default=None, gt=0, description="Factor of the queries; `head_dim ** -0.5` unless given, 1 in MiniMax-01."
    )
    bias: bool = Field(default=False, description="Bias of the projection to queries, keys and values.")
    out_bias: bool = Field(default=False, description="Bias of the output projection.")
    norm_groups: int = Field(
        default=1, gt=0, description="Equal parts of the output that are normalised by themselves."
    )
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square by the norm of the output.")

    def widths(self, hidden_size: int) -> tuple[int, int]:
        """Width of a head, and of all heads together.

        Raises:
            ValueError: The hidden size cannot be divided, or the heads not into groups, or rope does not fit.
        """
        heads = self.num_heads
        if self.head_dim is None and hidden_size % heads:
            raise ValueError(
                f"`hidden_size` ({hidden_size}) is not a multiple of `num_heads` ({heads}); give `head_dim`"
            )
        width = self.head_dim or hidden_size // heads
        if heads * width % self.norm_groups:
            raise ValueError(
                f"`norm_groups` ({self.norm_groups}) does not divide the width of the heads ({heads * width})"
            )
        if self.rope is not None:
            self.rope.rotated(width)
        return width, heads * width


def _params(options: LightningAttentionOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden = dims.hidden_size
    width, inner = options.widths(hidden)
    shapes: dict[str, tuple[int, ...]] = {
        "query_key_value.weight": (3 * inner, hidden),
        "g_proj.weight": (inner, hidden),
        "g_norm.weight": (inner,),
        "dense.weight": (hidden, inner),
    }
    if options.bias:
        shapes["query_key_value.bias"] = (3 * inner,)
    if options.out_bias:
        shapes["dense.bias"] = (hidden,)
    if options.qk_norm:
        learned = options.qk_norm.shapes(options.num_heads, width)
        shapes |= {f"{of}_layernorm.{name}": shape for of in ("query", "key") for name, shape in learned.items()}
    return shapes


def _flops(options: LightningAttentionOptions, dims: Dims, tokens: int, context: int) -> int:
    """For every number of the state: decay 1, input 2, output 2."""
    width, inner = options.widths(dims.hidden_size)
    return product_flops(_params(options, dims), tokens) + 5 * tokens * inner * width


def _saved(options: LightningAttentionOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Queries, keys and values on their way into the scan, its inputs and states in float32, and the gated norm."""
    width, inner = options.widths(dims.hidden_size)
    heads, norm = options.num_heads, options.qk_norm
    found = each(tokens, input=dims.hidden_size, gate=inner, normed=inner, output=inner)
    found += norm_saved(tokens, inner, options.norm_groups)
    if options.activation == "silu":
        found += each(tokens, projected=3 * inner, sigmoid=3 * inner)
    if norm:
        groups = 1 if norm.over == "all" else heads
        found += 2 * norm_saved(tokens, inner, groups, name="qk", weight=norm.weight, offset=norm.offset)
    blocks, steps = ssd_cut(tokens)
    full = tokens % steps == 0
    found += in_float32(blocks * steps, driving=3 * inner, steps=heads)
    found += () if full else in_float32(tokens, steps=heads)
    if dtype == "float32":
        found += each(tokens, beside=_beside(options, full) * inner)
    return found + ssd_saved(tokens, heads, width, width)


def _beside(options: LightningAttentionOptions, full: bool) -> int:
    """Thirds of the projection that no operation needs, but that lie in one array with those that one does."""
    if options.qk_norm:
        return 1 if options.rope is None or options.qk_norm.when == "before_rope" else 0
    return 2 if options.rope is None and full else 0


def _cache(options: LightningAttentionOptions, dims: Dims) -> State:
    width, _ = options.widths(dims.hidden_size)
    return State((Array("state", (options.num_heads, width, width), "float32"),))


def _shrink(options: LightningAttentionOptions, dims: Dims) -> dict[str, Any]:
    """At most four heads of 16, which any number of groups up to eight divides that divided the old ones."""
    small = written(options) | limited(options, {"num_heads": 4}) | {"head_dim": 16}
    if isinstance(small.get("rope"), Mapping):
        small["rope"] = small_rope(small["rope"], options.head_dim, 16)
    return small | {"norm_groups": gcd(options.norm_groups, 4)}


SPECS: Final = (
    ComponentSpec(
        name="lightning_attention",
        kind="layer",
        options=LightningAttentionOptions,
        module="axon_core.lightning_attention:LightningAttention.from_options",
        learning=learned(("dense.weight",)),
        summary="Linear attention with a fixed decay for every head (MiniMax-01, Ring-linear).",
        source='Qin et al. 2024, "Lightning Attention-2" (arXiv:2401.04658); '
        'MiniMax 2025, "MiniMax-01" (arXiv:2501.08313)',
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        reads={"offset": "rope"},
        unquantized=("query_layernorm", "key_layernorm"),
        transfers=LIGHTNING_TRANSFERS,
        split=lightning_split,
        shrink=_shrink,
        examples=(
            {"num_heads": 4},
            {"num_heads": 3, "head_dim": 16, "qk_norm": True, "norm_groups": 4, "slope_scale": 0.5},
            {"num_heads": 2, "activation": "silu", "scale": 1.0, "bias": True, "out_bias": True, "norm_eps": 1e-5},
        ),
    ),
)
