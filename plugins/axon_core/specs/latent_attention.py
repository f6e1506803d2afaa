"""Multi-head latent attention: options and record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import KV, CacheSpec, ComponentSpec, Composite, Dims, Options, written
from axon_core.specs._flops import attention_flops, pairs, product_flops
from axon_core.specs._heads import (
    GATE_HELP,
    LOG_SCALING_HELP,
    SINKS_HELP,
    TEMPERATURE_HELP,
    GateName,
    TemperatureOptions,
    numbers_of_heads,
    switch,
)
from axon_core.specs._indexer import IndexerOptions, indexer_cache, token_params
from axon_core.specs._learning import learned
from axon_core.specs._rope import RopeOptions
from axon_core.specs._saved_attention import latent_saved
from axon_core.specs._small import limited, small_rope
from axon_core.specs.splits.latent import latent_split
from axon_core.specs.transfers.latent import LATENT_TRANSFERS

__all__ = ["SPECS", "LatentAttentionOptions", "LatentRopeOptions", "LoraScaleOptions", "absorbs"]


class LatentRopeOptions(RopeOptions):
    """Rotary position embedding of the part of each head that has positions."""

    traditional: bool = Field(
        default=True, description="Pair neighbours (0,1), (2,3) …, as DeepSeek does, instead of the two halves."
    )
    learned: bool = Field(
        default=False,
        description="Learn a factor `exp(alpha)` of each frequency, with alphas that begin as 0 (LeRoPE). Those of "
        "another layer with `alphas_from`, so that all layers learn the same ones.",
    )


class LoraScaleOptions(Options):
    """Factors of what comes out of the latents, e.g. `=sqrt(hidden_size / kv_lora_rank)` (LongCat-Flash)."""

    q: float = Field(default=1.0, gt=0, description="Factor of the queries.")
    kv: float = Field(default=1.0, gt=0, description="Factor of the latent of keys and values, after its norm.")


Rope = Annotated[
    LatentRopeOptions | None, BeforeValidator(switch, json_schema_input_type=bool | LatentRopeOptions | None)
]


class LatentAttentionOptions(Options):
    """Causal attention whose heads share one latent vector and one rotated key per token (MLA)."""

    num_heads: int = Field(gt=0, description="Number of heads.")
    q_lora_rank: int | None = Field(
        default=None, gt=0, description="Width of the latent of queries; null for one full projection."
    )
    kv_lora_rank: int = Field(gt=0, description="Width of the latent of keys and values, which is what is cached.")
    qk_nope_head_dim: int = Field(gt=0, description="Width of the part of a head without positions.")
    qk_rope_head_dim: int = Field(
        ge=0,
        description="Width of the part with positions, whose key all heads share and which is cached too; 0 for none, "
        "with `rope: false`.",
    )
    v_head_dim: int | None = Field(
        default=None, gt=0, description="Width of a head's value; `qk_nope_head_dim` unless given."
    )
    rope: Rope = Field(
        default_factory=LatentRopeOptions,
        description="Rotary position embedding: false for none, or a mapping. On with theta 10000 unless given.",
    )
    bias: bool = Field(default=False, description="Biases of the projections to the latents and of the output.")
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square in the norms of the latents.")
    scale: float | None = Field(
        default=None,
        gt=0,
        description="Factor of the scores before softmax; `(qk_nope_head_dim + qk_rope_head_dim) ** -0.5` unless "
        "given, and with yarn and `mscale_all_dim` times `(0.1 * mscale_all_dim * log(factor) + 1) ** 2`.",
    )
    lora_scale: LoraScaleOptions = Field(
        default_factory=LoraScaleOptions, description="Factors of what comes out of the latents; 1 unless given."
    )
    indexer: IndexerOptions | None = Field(
        default=None,
        description="Attend to the tokens with the best scores of a small attention, which has a cache of its own "
        "(DeepSeek sparse attention); to all unless given.",
    )
    index_from: str | None = Field(
        default=None,
        description="Component whose choice of tokens is taken, from the nearest earlier layer that uses it, instead "
        "of one by an indexer of its own.",
    )
    kv_from: str | None = Field(
        default=None,
        description="Component whose latents and rotated keys are read, from the nearest earlier layer that uses it "
        "and makes its own; keys and values of the heads are made of them by this layer's own matrices.",
    )
    alphas_from: str | None = Field(
        default=None,
        description="Component whose learned alphas of rotary frequencies are taken, from the nearest earlier layer "
        "that uses it and has its own; needs `rope.learned`.",
    )
    temperature: TemperatureOptions | None = Field(default=None, description=TEMPERATURE_HELP)
    log_scaling: bool = Field(default=False, description=LOG_SCALING_HELP)
    sinks: bool = Field(default=False, description=SINKS_HELP)
    gate: GateName | None = Field(default=None, description=GATE_HELP)

    @model_validator(mode="after")
    def _consistent(self) -> LatentAttentionOptions:
        if self.q_lora_rank is None and self.lora_scale.q != 1.0:
            raise ValueError("`lora_scale.q` needs a `q_lora_rank`: without one, queries come out of no latent")
        if self.rope is not None and not self.qk_rope_head_dim:
            raise ValueError("with a `qk_rope_head_dim` of 0 nothing is rotated: write `rope: false`")
        if self.alphas_from is not None and not (self.rope is not None and self.rope.learned):
            raise ValueError("`alphas_from` takes what `rope` has learned elsewhere: it needs `rope: {learned: true}`")
        if self.indexer is not None and self.rope is not None and self.indexer.head_dim < self.qk_rope_head_dim:
            raise ValueError(
                f"`indexer.head_dim` ({self.indexer.head_dim}) is less than `qk_rope_head_dim` "
                f"({self.qk_rope_head_dim}), which is rotated"
            )
        return self

    @property
    def own_indexer(self) -> IndexerOptions | None:
        """The indexer of this layer itself."""
        return None if self.index_from is not None else self.indexer

    @property
    def own_alphas(self) -> int:
        """Learned numbers of rotary frequencies that this layer itself has."""
        if self.rope is None or not self.rope.learned or self.alphas_from is not None:
            return 0
        return self.rope.rotated(self.qk_rope_head_dim) // 2

    @property
    def value_dim(self) -> int:
        """Width of a head's value."""
        return self.v_head_dim or self.qk_nope_head_dim

    @property
    def gate_dim(self) -> int:
        """Numbers of the gate for each token; 0 without one."""
        if self.gate is None:
            return 0
        return self.num_heads * (1 if self.gate == "head" else self.value_dim)

    @property
    def softmax_scale(self) -> float:
        """Factor of the scores: with DeepSeek's yarn it holds the part of the gain that rope divides out."""
        if self.scale is not None:
            return self.scale
        scale = (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5
        scaling = None if self.rope is None else self.rope.scaling
        if scaling is None or scaling.type != "yarn" or not scaling.mscale_all_dim:
            return scale
        return scale * (0.1 * scaling.mscale_all_dim * math.log(scaling.stretch) + 1) ** 2


def _params(options: LatentAttentionOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    heads, hidden, rank = options.num_heads, dims.hidden_size, options.kv_lora_rank
    if options.rope is not None:
        options.rope.rotated(options.qk_rope_head_dim)  # refuses what does not fit
    queries = heads * (options.qk_nope_head_dim + options.qk_rope_head_dim)
    found: dict[str, tuple[int, ...]] = {
        "embed_q.weight": (heads, rank, options.qk_nope_head_dim),
        "unembed_out.weight": (heads, options.value_dim, rank),
        "o_proj.weight": (hidden, heads * options.value_dim),
    }
    if options.kv_from is None:
        found["kv_a_proj_with_mqa.weight"] = (rank + options.qk_rope_head_dim, hidden)
        found["kv_a_layernorm.weight"] = (rank,)
    if options.q_lora_rank is None:
        found["q_proj.weight"] = (queries, hidden)
    else:
        found["q_a_proj.weight"] = (options.q_lora_rank, hidden)
        found["q_a_layernorm.weight"] = (options.q_lora_rank,)
        found["q_b_proj.weight"] = (queries, options.q_lora_rank)
    if options.gate is not None:
        found["g_proj.weight"] = (options.gate_dim, hidden)
    found |= numbers_of_heads(options, heads)
    if options.own_alphas:
        found["rope_alpha"] = (options.own_alphas,)
    if options.bias:
        for name in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj"):
            if f"{name}.weight" in found:
                found[f"{name}.bias"] = found[f"{name}.weight"][:1]
    if options.own_indexer is not None:
        found |= token_params(options.own_indexer, hidden, options.q_lora_rank or hidden)
    return found


def _flops(options: LatentAttentionOptions, dims: Dims, tokens: int, context: int) -> int:
    """Whichever form `axon_core.latent_attention` takes: queries to the latents, or keys and values out of them."""
    heads, rank, rope = options.num_heads, options.kv_lora_rank, options.qk_rope_head_dim
    nope, values = options.qk_nope_head_dim, options.value_dim
    shapes = _params(options, dims)
    own = {name: shapes.pop(name) for name in list(shapes) if name.startswith("indexer.")}
    projected = product_flops(shapes, tokens)
    chosen = None
    if options.indexer is not None:
        projected += options.indexer.flops(own, tokens, context) if own else 0
        chosen = options.indexer.chosen
        context = min(context, chosen) if tokens == 1 else context  # a single query reads only what it chose
    seen = pairs(tokens, context, chosen)
    between = 2 * heads * rank * (nope + values)
    if absorbs(tokens, context, rank, nope + values):
        return projected + tokens * between + attention_flops(heads, rank + rope, rank, seen)
    return projected + context * between + attention_flops(heads, nope + rope, values, seen)


def absorbs(tokens: int, context: int, rank: int, widths: int) -> bool:
    """Whether to attend in the space of latents: what multiplies less for `tokens` queries on `context` keys.

    Taking one vector to the latents and one back costs rank * widths, for each query or for each key; then a pair of a
    query and a key costs twice the rank, or the widths.
    """
    return tokens * context * (2 * rank - widths) < (context - tokens) * rank * widths


def _shrink(options: LatentAttentionOptions, dims: Dims) -> dict[str, Any]:
    """Small sizes with the same structure; a latent wider than a head, so that both forms are used."""
    limits = {"num_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "v_head_dim": 16}
    small = written(options) | limited(options, limits) | {"qk_rope_head_dim": min(8, options.qk_rope_head_dim)}
    if isinstance(small.get("rope"), Mapping):
        small["rope"] = small_rope(small["rope"], options.qk_rope_head_dim, 8)
    if options.indexer is not None:
        limits = {"num_heads": 4, "head_dim": 16, "top_k": 8}
        small["indexer"] = written(options.indexer) | limited(options.indexer, limits)
        if options.indexer.pool_size is not None:
            small["indexer"] |= {"pool_size": 4}
    return small


def _cache(options: LatentAttentionOptions, dims: Dims) -> CacheSpec | None:
    latents = None if options.kv_from is not None else KV(1, options.kv_lora_rank, options.qk_rope_head_dim)
    keys = None if options.own_indexer is None else indexer_cache(options.own_indexer)
    return Composite((latents, keys)) if latents and keys else latents or keys


def _accepts_selection(options: LatentAttentionOptions, source: Any, dims: Dims) -> str | None:
    """Why the choice of `source` cannot serve, or None."""
    if not isinstance(source, LatentAttentionOptions) or source.indexer is None:
        return "it has no `indexer`"
    for name in ("top_k", "pool_size") if options.indexer is not None else ():
        own, other = getattr(options.indexer, name), getattr(source.indexer, name)
        if own != other:
            return f"`indexer.{name}` is {own}, that of the source {other}"
    return None


def _accepts_latents(options: LatentAttentionOptions, source: Any, dims: Dims) -> str | None:
    """Why the latents of `source` cannot serve, or None: they come with their factor, and keys rotated."""
    if not isinstance(source, LatentAttentionOptions):
        return "it has no latents"
    for name in ("kv_lora_rank", "qk_rope_head_dim"):
        own, other = getattr(options, name), getattr(source, name)
        if own != other:
            return f"`{name}` is {own}, that of the source {other}"
    if options.rope != source.rope:
        return "`rope` differs from that of the source, whose keys are already rotated"
    if options.lora_scale.kv != source.lora_scale.kv:
        return "`lora_scale.kv` differs from that of the source, whose latents come with it"
    return None


def _accepts_alphas(options: LatentAttentionOptions, source: Any, dims: Dims) -> str | None:
    """Why the alphas of `source` cannot serve, or None."""
    if not isinstance(source, LatentAttentionOptions) or source.rope is None or not source.rope.learned:
        return "its `rope` has no `learned: true`"
    assert options.rope is not None
    own, other = options.rope.rotated(options.qk_rope_head_dim), source.rope.rotated(source.qk_rope_head_dim)
    return None if own == other else f"it rotates {other} dimensions, not {own}"


_SMALL: Final = {"num_heads": 4, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
_YARN: Final = {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}
_YARN_DEEPSEEK: Final = {**_YARN, "mscale": 1.0, "mscale_all_dim": 0.707}

SPECS: Final = (
    ComponentSpec(
        name="latent_attention",
        module_name="self_attn",
        kind="layer",
        options=LatentAttentionOptions,
        module="axon_core.latent_attention:LatentAttention.from_options",
        learning=learned(
            ("o_proj.weight",),
            own=("log_scaling.*", "indexer.log_scaling.*"),
            stacked=("embed_q.weight", "unembed_out.weight"),
            adamw=("indexer.weights_proj.weight",),
        ),
        summary="Multi-head latent attention (MLA): all heads' keys and values out of one cached vector per token.",
        source='DeepSeek-AI 2024, "DeepSeek-V2" (arXiv:2405.04434); '
        'indexer: DeepSeek-AI 2025, "DeepSeek-V3.2" (arXiv:2512.02556)',
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=lambda options, dims, tokens, dtype: latent_saved(tokens, dims.hidden_size, options, dtype),
        reads={"offset": None, "selection": "index_from", "kv": "kv_from", "alphas": "alphas_from"},
        writes=("selection", "kv", "alphas"),
        constant=("alphas",),
        accepts={"selection": _accepts_selection, "kv": _accepts_latents, "alphas": _accepts_alphas},
        chosen=lambda options, dims: options.indexer and options.indexer.chosen,
        float32=("rope_alpha",),
        unquantized=("indexer.weights_proj",),
        transfers=LATENT_TRANSFERS,
        split=latent_split(_params),
        shrink=_shrink,
        examples=(
            _SMALL,
            {**_SMALL, "q_lora_rank": 20, "bias": True, "v_head_dim": 12, "rope": {"scaling": _YARN_DEEPSEEK}},
            {**_SMALL, "q_lora_rank": 20, "lora_scale": {"q": 1.3, "kv": 1.2}, "rope": False, "norm_eps": 1e-5},
            # A latent narrower than what it replaces: absorbed throughout.
            {**_SMALL, "num_heads": 2, "kv_lora_rank": 12, "scale": 0.3, "rope": {"traditional": False}},
            {**_SMALL, "q_lora_rank": 20, "indexer": {"num_heads": 4, "head_dim": 16, "top_k": 12}},
            {
                **_SMALL,
                "indexer": {"num_heads": 2, "head_dim": 12, "top_k": 13, "traditional": True, "rope_last": True},
            },
            {
                **_SMALL,
                "qk_rope_head_dim": 0,
                "rope": False,
                "indexer": {"num_heads": 2, "head_dim": 12, "top_k": 12, "pool_size": 3},
            },
            {**_SMALL, "gate": "head", "temperature": {"scale": 0.5, "length": 4}},
            {**_SMALL, "v_head_dim": 12, "gate": "elementwise", "rope": False},
            {**_SMALL, "v_head_dim": 12, "sinks": True},
            {
                **_SMALL,
                "rope": {"learned": True, "theta": 100.0},
                "log_scaling": True,
                "indexer": {"num_heads": 4, "head_dim": 16, "top_k": 12, "query_norm": True, "log_scaling": True},
            },
        ),
    ),
)
