"""Short convolutions of keys and values: options and record."""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._heads import KV_HEADS_HELP, QKNorm, check_groups
from axon_core.specs._learning import learned
from axon_core.specs._saved import convolution_saved, each, in_float32, norm_saved
from axon_core.specs._small import limited, small_heads
from axon_core.specs.splits.convolutions import kv_conv_split

__all__ = ["SPECS", "KVConvOptions"]


class KVConvOptions(Options):
    """Short convolutions of keys and values, read through a gate of queries (Gear)."""

    num_heads: int = Field(gt=0, description="Number of query heads.")
    num_kv_heads: int | None = Field(default=None, gt=0, description=KV_HEADS_HELP)
    head_dim: int = Field(gt=0, description="Width of a head.")
    # Over one token it would see no other, and the layer would mix nothing.
    d_conv: int = Field(default=3, gt=1, description="Tokens that the convolutions see, the current one included.")
    qk_norm: QKNorm = Field(
        default=None, description="Norm of queries and keys: true for an RMS norm of each head, or a mapping."
    )
    bias: bool = Field(default=False, description="Biases of the projections and of the convolutions.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_groups(self.num_heads, self.kv_heads)
        if self.qk_norm is not None and self.qk_norm.when == "after_rope":
            raise ValueError("`qk_norm.when` has no meaning: nothing is rotated here")
        return self

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.num_kv_heads or self.num_heads


def _params(options: KVConvOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, width = dims.hidden_size, options.head_dim
    queries, values = options.num_heads * width, options.kv_heads * width
    shapes: dict[str, tuple[int, ...]] = {
        "q_proj": (queries, hidden),
        "k_proj": (values, hidden),
        "v_proj": (values, hidden),
        "o_proj": (hidden, queries),
        "key_conv": (values, options.d_conv, 1),
        "value_conv": (values, options.d_conv, 1),
    }
    found = {f"{name}.weight": shape for name, shape in shapes.items()}
    if options.bias:
        found |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    if options.qk_norm is not None:
        for name, heads in (("q", options.num_heads), ("k", options.kv_heads)):
            found |= {f"{name}_norm.{part}": shape for part, shape in options.qk_norm.shapes(heads, width).items()}
    return found


def _flops(options: KVConvOptions, dims: Dims, tokens: int, context: int) -> int:
    convolved = convolution_flops(2 * options.kv_heads * options.head_dim, options.d_conv, tokens)
    return product_flops(_params(options, dims), tokens) + convolved


def _saved(options: KVConvOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    queries, values = options.num_heads * options.head_dim, options.kv_heads * options.head_dim
    found = each(tokens, input=dims.hidden_size, output=queries)
    found += convolution_saved(tokens, 2 * values, options.d_conv, dtype)
    found += in_float32(tokens, queries=queries, gate=queries)
    if options.qk_norm is not None:
        norm = options.qk_norm
        for name, width, heads in (("q", queries, options.num_heads), ("k", values, options.kv_heads)):
            found += norm_saved(tokens, width, heads, name=f"{name}_norm", weight=norm.weight, offset=norm.offset)
    return found


def _cache(options: KVConvOptions, dims: Dims) -> State:
    before = (options.d_conv - 1, options.kv_heads * options.head_dim)
    return State((Array("key_conv", before), Array("value_conv", before)))


def _shrink(options: KVConvOptions, dims: Dims) -> dict[str, Any]:
    """Up to four heads of 16; `d_conv` stays, for it decides what the cache holds."""
    small = written(options) | {"head_dim": 16} | limited(options, {"d_conv": 4})
    return small | small_heads(options.num_heads, options.num_kv_heads)


SPECS: Final = (
    ComponentSpec(
        name="kv_conv",
        module_name="local_mixer",
        kind="layer",
        options=KVConvOptions,
        module="axon_core.kv_conv:KVConv.from_options",
        learning=learned(("o_proj.weight",), own=("key_conv.*", "value_conv.*")),
        summary="Short causal convolutions of keys and values, gated by queries (Gear).",
        source="mlx-lm 2026, `gear`",
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        unquantized=("q_norm", "k_norm"),
        split=kv_conv_split,
        shrink=_shrink,
        examples=(
            {"num_heads": 4, "head_dim": 16, "qk_norm": {"offset": 1.0}},
            {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "d_conv": 4, "bias": True, "qk_norm": True},
            {"num_heads": 2, "num_kv_heads": 1, "head_dim": 24, "d_conv": 2},
        ),
    ),
)
