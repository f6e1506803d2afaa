"""Attention within a window and to compressed tokens before it: options and record."""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import KV, Array, CacheSpec, ComponentSpec, Composite, Dims, Options, State, written
from axon_core.specs._flops import attention_flops, pairs, product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, in_float32, norm_saved
from axon_core.specs._saved_attention import scores_saved
from axon_core.specs._small import limited, thinned
from axon_core.specs.latent_attention import LatentRopeOptions
from axon_core.specs.splits.latent import compressed_split

__all__ = ["SPECS", "CompressedAttentionOptions", "CompressionOptions", "EntryIndexerOptions"]

Shapes = dict[str, tuple[int, ...]]


class EntryIndexerOptions(Options):
    """Which compressed entries a query attends to: those with the best scores of a small attention."""

    num_heads: int = Field(gt=0, description="Number of heads that score.")
    head_dim: int = Field(gt=0, description="Width of a head, a multiple of `ratio`.")
    top_k: int = Field(gt=0, description="Entries that a query attends to, at most.")


class CompressionOptions(Options):
    """How tokens are compressed into entries."""

    ratio: int = Field(gt=1, description="Tokens of an entry, a divisor of `head_dim`.")
    overlap: bool = Field(default=False, description="An entry is also made of the tokens of the one before it.")
    indexer: EntryIndexerOptions | None = Field(
        default=None, description="Attend to the entries with the best scores; to all unless given."
    )


class CompressedAttentionOptions(Options):
    """Attention to a window, and to one compressed entry for every few tokens of all that came before."""

    num_heads: int = Field(gt=0, description="Number of query heads; all share one key, which is the value too.")
    head_dim: int = Field(gt=0, description="Width of a head.")
    q_lora_rank: int = Field(gt=0, description="Width of the latent of queries.")
    window_size: int = Field(gt=0, description="Tokens that a query sees as they are, itself included.")
    rope: LatentRopeOptions = Field(
        default_factory=LatentRopeOptions.model_construct,
        description="Rotation of the last dimensions of each head, as many as `dims` or `fraction` say; of the "
        "indexer's heads the same number. Theta is 10000 unless given; `yarn` has no gain without `attention_factor`.",
    )
    compression: CompressionOptions | None = Field(
        default=None, description="Compressed entries; the window alone unless given."
    )
    o_groups: int = Field(default=1, gt=0, description="Equal parts of the heads that are projected by themselves.")
    o_lora_rank: int = Field(gt=0, description="Width that each of those parts is projected to.")
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square in all norms.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_heads % self.o_groups:
            raise ValueError(f"`num_heads` ({self.num_heads}) is not a multiple of `o_groups` ({self.o_groups})")
        widths = {"head_dim": self.head_dim}
        if self.compression is not None and self.compression.indexer is not None:
            widths["compression.indexer.head_dim"] = self.compression.indexer.head_dim
        for name, width in widths.items():
            if width < (rotated := self.rope.rotated(self.head_dim)):
                raise ValueError(f"`{name}` ({width}) is less than the {rotated} rotated dimensions")
            if self.compression is not None and width % self.compression.ratio:
                raise ValueError(f"`{name}` ({width}) is not a multiple of the `ratio` ({self.compression.ratio})")
        return self

    @property
    def rope_dim(self) -> int:
        """Dimensions that are rotated."""
        return self.rope.rotated(self.head_dim)

    @property
    def rotation(self) -> LatentRopeOptions:
        """The rotation of those dimensions alone."""
        scaling = self.rope.scaling
        if scaling is not None and scaling.type == "yarn" and scaling.attention_factor is None:
            scaling = scaling.model_copy(update={"attention_factor": 1.0})
        return self.rope.model_copy(update={"dims": None, "fraction": None, "scaling": scaling})


def _compressor(name: str, hidden: int, width: int, compression: CompressionOptions) -> Shapes:
    series = (2 if compression.overlap else 1) * width
    return {
        f"{name}.kv_proj.weight": (series, hidden),
        f"{name}.gate_proj.weight": (series, hidden),
        f"{name}.position_bias": (compression.ratio, series),
        f"{name}.kv_norm.weight": (width,),
    }


def _params(options: CompressedAttentionOptions, dims: Dims) -> Shapes:
    hidden, width, heads = dims.hidden_size, options.head_dim, options.num_heads
    found: Shapes = {
        "q_a_proj.weight": (options.q_lora_rank, hidden),
        "q_a_norm.weight": (options.q_lora_rank,),
        "q_b_proj.weight": (heads * width, options.q_lora_rank),
        "kv_proj.weight": (width, hidden),
        "kv_norm.weight": (width,),
        "sinks": (heads,),
        "o_a_proj.weight": (options.o_groups, options.o_lora_rank, heads * width // options.o_groups),
        "o_b_proj.weight": (hidden, options.o_groups * options.o_lora_rank),
    }
    if options.compression is not None:
        found |= _compressor("compressor", hidden, width, options.compression)
        if (indexer := options.compression.indexer) is not None:
            found |= _compressor("indexer.compressor", hidden, indexer.head_dim, options.compression)
            found["indexer.q_b_proj.weight"] = (indexer.num_heads * indexer.head_dim, options.q_lora_rank)
            found["indexer.weights_proj.weight"] = (indexer.num_heads, hidden)
    return found


def _entries(tokens: int, context: int, ratio: int, most: int | None = None) -> int:
    """Pairs of one of the last `tokens` queries and an entry: the sum of `min(t // ratio, most)`."""
    return _entries_until(context, ratio, most) - _entries_until(context - tokens, ratio, most)


def _entries_until(context: int, ratio: int, most: int | None) -> int:
    whole, rest = divmod(context, ratio)
    growing = whole if most is None else min(whole, most)
    pairs_of = ratio * growing * (growing - 1) // 2
    if growing == whole:
        return pairs_of + growing * (rest + 1)
    return pairs_of + growing * (context - growing * ratio + 1)


#: What only queries need that have something to choose.
_CHOOSING: Final = ("indexer.q_b_proj.weight", "indexer.weights_proj.weight")


def _flops(options: CompressedAttentionOptions, dims: Dims, tokens: int, context: int) -> int:
    shapes, width = _params(options, dims), options.head_dim
    chooses = {name: shapes.pop(name) for name in list(shapes) if name in _CHOOSING}
    grouped = shapes["o_a_proj.weight"]
    total = product_flops(shapes, tokens) + 2 * tokens * grouped[0] * grouped[1] * grouped[2]
    seen = pairs(tokens, context, options.window_size)
    if options.compression is not None:
        ratio, indexer = options.compression.ratio, options.compression.indexer
        seen += _entries(tokens, context, ratio, None if indexer is None else indexer.top_k)
        if indexer is not None:
            choosing = max(0, context - max(context - tokens, (indexer.top_k + 1) * ratio - 1))
            total += product_flops(chooses, choosing)
            total += attention_flops(indexer.num_heads, indexer.head_dim, 0, _entries(choosing, context, ratio))
    return total + attention_flops(options.num_heads, width, width, seen)


def _states(options: CompressedAttentionOptions) -> tuple[Array, ...]:
    compression = options.compression
    assert compression is not None
    series = 2 if compression.overlap else 1
    before = series * compression.ratio - 1
    widths = {"": options.head_dim}
    if compression.indexer is not None:
        widths["index_"] = compression.indexer.head_dim
    found: list[Array] = []
    for name, width in widths.items():
        found += [Array(f"{name}{part}", (before, series * width)) for part in ("values", "gates")]
        found.append(Array(f"{name}entry", (1, width)))
    return tuple(found)


def _cache(options: CompressedAttentionOptions, dims: Dims) -> CacheSpec:
    window = KV(1, options.head_dim, 0, window=options.window_size)
    compression = options.compression
    if compression is None:
        return window
    index = compression.indexer.head_dim if compression.indexer is not None else 0
    pieces = KV(1, options.head_dim // compression.ratio, index // compression.ratio)
    return Composite((window, pieces, State(_states(options))))


def _saved(options: CompressedAttentionOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    heads, width, hidden = options.num_heads, options.head_dim, dims.hidden_size
    found = each(tokens, input=hidden, latent=options.q_lora_rank, queries=heads * width, keys=width)
    found += each(tokens, attended=heads * width, grouped=options.o_groups * options.o_lora_rank)
    found += norm_saved(tokens, options.q_lora_rank, name="q_a_norm") + norm_saved(tokens, width, name="kv_norm")
    found += norm_saved(tokens, heads * width, heads, name="q_norm", weight=False)
    found += each(tokens, angles=3 * options.rope_dim)
    found += scores_saved(tokens, heads, options.window_size)
    if options.compression is not None:
        ratio, series = options.compression.ratio, 2 if options.compression.overlap else 1
        count = tokens // ratio
        found += each(tokens, compressed=2 * series * width) + in_float32(tokens, weights=series * width)
        found += norm_saved(count, width, name="entry_norm")
        found += (Array("entry_scores", (heads, tokens * count)), Array("entry_mask", (tokens * count,), "bool"))
    return found


def _shrink(options: CompressedAttentionOptions, dims: Dims) -> dict[str, Any]:
    """Small sizes with the same structure."""
    limits = {"num_heads": 4, "q_lora_rank": 24, "window_size": 8, "o_groups": 2, "o_lora_rank": 12}
    small = written(options) | limited(options, limits) | {"head_dim": 16}
    rope = {name: value for name, value in small.get("rope", {}).items() if name not in ("dims", "fraction")}
    small["rope"] = thinned(rope | {"dims": 8}, 8)
    if options.compression is not None:
        small["compression"] = written(options.compression) | {"ratio": 4 if options.compression.ratio <= 16 else 8}
        if options.compression.indexer is not None:
            limits = {"num_heads": 4, "head_dim": 16, "top_k": 3}
            own = limited(options.compression.indexer, limits) | {"head_dim": 16}
            small["compression"]["indexer"] = written(options.compression.indexer) | own
    return small


_SMALL: Final = {
    "num_heads": 4,
    "head_dim": 16,
    "q_lora_rank": 20,
    "window_size": 8,
    "rope": {"dims": 8},
    "o_groups": 2,
    "o_lora_rank": 12,
}
_YARN: Final = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64}
_INDEXER: Final = {"num_heads": 4, "head_dim": 16, "top_k": 3}

SPECS: Final = (
    ComponentSpec(
        name="compressed_attention",
        module_name="self_attn",
        kind="layer",
        options=CompressedAttentionOptions,
        module="axon_core.compressed_attention:CompressedAttention.from_options",
        learning=learned(("o_b_proj.weight",), stacked=("o_a_proj.weight",), adamw=("indexer.weights_proj.weight",)),
        summary="Attention within a window, and to one compressed entry for every few tokens before; all heads share "
        "keys, which are the values too.",
        source='DeepSeek-AI 2026, "DeepSeek-V4"',
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        reads={"offset": None},
        window=lambda options, dims: options.window_size,
        mask="banded",
        unquantized=("indexer.weights_proj",),
        split=compressed_split,
        shrink=_shrink,
        examples=(
            {**_SMALL, "rope": {"theta": 500.0, "fraction": 0.5, "scaling": _YARN}},
            {**_SMALL, "compression": {"ratio": 8}},
            {**_SMALL, "compression": {"ratio": 4, "overlap": True, "indexer": _INDEXER}, "norm_eps": 1e-5},
            {**_SMALL, "o_groups": 1, "compression": {"ratio": 4, "overlap": True}},
        ),
    ),
)
