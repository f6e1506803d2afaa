"""A transformer layer beside the stack: options and record."""

from collections.abc import Mapping
from math import prod
from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import KV, Array, ComponentSpec, Dims, Options, written
from axon_core.specs._flops import attention_flops, pairs
from axon_core.specs._heads import KV_HEADS_HELP, check_groups
from axon_core.specs._learning import learned
from axon_core.specs._rope import Rope
from axon_core.specs._saved import activation_saved, each, norm_saved
from axon_core.specs._saved_attention import scores_saved
from axon_core.specs._small import limited, small_heads, small_rope
from axon_core.specs.mlp import ACTIVATION_HELP, Activation
from axon_core.specs.splits.side import side_transformer_split

__all__ = ["SPECS", "SideTransformerOptions"]

Shapes = dict[str, tuple[int, int]]


class SideTransformerOptions(Options):
    """Attention and MLP that read stream and embedding; many uses share matrices, and each has adapters of its own."""

    num_heads: int = Field(gt=0, description="Number of query heads.")
    num_kv_heads: int | None = Field(default=None, gt=0, description=KV_HEADS_HELP)
    head_dim: int = Field(gt=0, description="Width of a head; scores are divided by the root of half of it.")
    intermediate_size: int = Field(gt=0, description="Width of the MLP.")
    activation: Activation = Field("gelu", description=ACTIVATION_HELP)
    rope: Rope = Field(default=None, description="Rotary position embedding: true, or a mapping; none unless given.")
    norm_eps: float = Field(default=1e-5, gt=0, description="Added to the mean square in both norms.")
    uses: list[int] = Field(default=[0], min_length=1, description="Numbers of the uses that share the matrices.")
    use: int = Field(default=0, ge=0, description="Which of them this one is: whose adapters it takes.")
    adapter_rank: int = Field(default=128, gt=0, description="Width between the two matrices of an adapter.")
    attention_adapters: bool = Field(default=False, description="Adapters of queries, keys and values too.")
    weights_from: str | None = Field(
        default=None, description="Component whose matrices are used, that of the first use; its own unless given."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_groups(self.num_heads, self.kv_heads)
        if self.use not in self.uses:
            raise ValueError(f"`use` ({self.use}) is none of `uses`")
        if self.activation in ("swiglu_oai", "swiglu_clipped", "situ"):
            raise ValueError(f"`{self.activation}` has bounds that this layer does not have")
        return self

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.num_kv_heads or self.num_heads

    def matrices(self, hidden: int) -> Shapes:
        """Shapes of what all uses share, (outputs, inputs)."""
        queries, keys = self.num_heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (queries, 2 * hidden),
            "k_proj": (keys, 2 * hidden),
            "v_proj": (keys, 2 * hidden),
            "o_proj": (hidden, queries),
            "gate_proj": (self.intermediate_size, hidden),
            "up_proj": (self.intermediate_size, hidden),
            "down_proj": (hidden, self.intermediate_size),
        }

    def adapters(self, hidden: int) -> Shapes:
        """Shapes of the adapters of one use: `…_a` to the narrow width, `…_b` from it."""
        rank, shapes = self.adapter_rank, self.matrices(hidden)
        found: Shapes = {"mlp_a": (rank, hidden)}
        found |= {f"{name}_b": (self.intermediate_size, rank) for name in ("gate", "up")}
        if self.attention_adapters:
            found |= {f"{name}_a": (rank, 2 * hidden) for name in "qkv"}
            found |= {f"{name}_b": (shapes[f"{name}_proj"][0], rank) for name in "qkv"}
        return found


def _params(options: SideTransformerOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden = dims.hidden_size
    if options.rope is not None:
        options.rope.rotated(options.head_dim)  # refuses what does not fit
    found: dict[str, tuple[int, ...]] = {"linear.weight": (hidden, hidden)}
    if options.weights_from is not None:
        return found
    found |= {f"{name}.weight": shape for name, shape in options.matrices(hidden).items()}
    found |= {"input_norm.weight": (2 * hidden,), "mlp_norm.weight": (hidden,)}
    adapters = options.adapters(hidden).items()
    return found | {f"use_{number}.{name}.weight": shape for number in options.uses for name, shape in adapters}


def _multiplied(options: SideTransformerOptions, hidden: int) -> int:
    """Entries of the matrices that one token passes through."""
    used = [(hidden, hidden), *options.matrices(hidden).values(), *options.adapters(hidden).values()]
    return sum(prod(shape) for shape in used)


def _flops(options: SideTransformerOptions, dims: Dims, tokens: int, context: int) -> int:
    scores = attention_flops(options.num_heads, options.head_dim, options.head_dim, pairs(tokens, context))
    return 2 * tokens * _multiplied(options, dims.hidden_size) + scores


def _active(options: SideTransformerOptions, dims: Dims) -> int:
    """Its own matrix, and where it holds the shared ones those and the adapters of one use."""
    hidden = dims.hidden_size
    if options.weights_from is not None:
        return hidden * hidden
    return _multiplied(options, hidden) + 3 * hidden


def _saved(options: SideTransformerOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    hidden, rank = dims.hidden_size, options.adapter_rank
    queries, keys = options.num_heads * options.head_dim, options.kv_heads * options.head_dim
    found = each(tokens, queries=queries, keys=keys, values=keys, attended=queries, output=hidden, narrow=rank)
    found += norm_saved(tokens, 2 * hidden, name="input_norm") + norm_saved(tokens, hidden, name="mlp_norm")
    found += each(tokens, input=2 * hidden, inner=hidden)
    if options.attention_adapters:
        found += each(tokens, narrow_heads=3 * rank)
    found += activation_saved(tokens, options.intermediate_size, options.activation, gated=True)
    return found + scores_saved(tokens, options.num_heads, None)


def _accepts(options: SideTransformerOptions, source: Any, dims: Dims) -> str | None:
    """Why the matrices of `source` cannot serve, or None."""
    if not isinstance(source, SideTransformerOptions):
        return None
    if source.weights_from is not None:
        return "it has no matrices of its own"
    if options.matrices(1) != source.matrices(1) or options.adapters(1) != source.adapters(1):
        return "its sizes are others"
    return None if options.uses == source.uses else "`uses` differs"


def _shrink(options: SideTransformerOptions, dims: Dims) -> dict[str, Any]:
    small = written(options) | limited(options, {"intermediate_size": 48, "adapter_rank": 8}) | {"head_dim": 16}
    small |= small_heads(options.num_heads, options.num_kv_heads)
    if isinstance(small.get("rope"), Mapping):
        small["rope"] = small_rope(small["rope"], options.head_dim, 16)
    return small


_SMALL: Final = {"num_heads": 4, "head_dim": 16, "intermediate_size": 48, "adapter_rank": 8}

SPECS: Final = (
    ComponentSpec(
        name="side_transformer",
        module_name="shared_transformer",
        kind="layer",
        options=SideTransformerOptions,
        module="axon_core.side_transformer:SideTransformer.from_options",
        learning=learned(("linear.weight",)),
        summary="Attention and MLP on stream and embedding, shared by many layers with adapters of their own (Zamba2).",
        source='Glorioso et al. 2024, "The Zamba2 Suite" (arXiv:2411.15242)',
        cache=lambda options, dims: KV(options.kv_heads, options.head_dim),
        params=_params,
        active=_active,
        flops=_flops,
        saved=_saved,
        reads={"offset": None, "vectors": None, "weights": "weights_from"},
        writes=("weights",),
        constant=("weights",),
        accepts=_accepts,
        split=side_transformer_split,
        shrink=_shrink,
        examples=(
            _SMALL,
            {**_SMALL, "num_kv_heads": 2, "uses": [0, 2], "use": 2, "attention_adapters": True, "rope": {}},
        ),
    ),
)
