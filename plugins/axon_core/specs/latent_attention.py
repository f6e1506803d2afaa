"""Multi-head latent attention: its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import KV, CacheSpec, ComponentSpec, Composite, Dims, written
from axon_core.specs._flops import attention_flops, pairs, product_flops
from axon_core.specs._heads import (
    numbers_of_heads,
)
from axon_core.specs._indexer import indexer_cache, token_params
from axon_core.specs._latent_options import LatentAttentionOptions, LatentRopeOptions, LoraScaleOptions
from axon_core.specs._learning import learned
from axon_core.specs._saved_attention import latent_saved
from axon_core.specs._small import limited, small_rope
from axon_core.specs.splits.latent import latent_split
from axon_core.specs.transfers.latent import LATENT_TRANSFERS

__all__ = ["SPECS", "LatentAttentionOptions", "LatentRopeOptions", "LoraScaleOptions", "absorbs"]


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
        if options.rope_key_norm:
            found["k_rope_layernorm.weight"] = (options.qk_rope_head_dim,)
    if options.q_lora_rank is None:
        found["q_proj.weight"] = (queries, hidden)
    else:
        found["q_a_proj.weight"] = (options.q_lora_rank, hidden)
        found["q_a_layernorm.weight"] = (options.q_lora_rank,)
        found["q_b_proj.weight"] = (queries, options.query_width or 0)
    if options.gate is not None:
        found["g_proj.weight"] = (options.gate_dim, options.query_width or 0 if options.both_latents else hidden)
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
    chosen = options.window_size
    if chosen is not None:
        context = min(context, chosen - 1 + tokens)  # what a cache within the window holds
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
    limits["window_size"] = 8
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
    kept = KV(1, options.kv_lora_rank, options.qk_rope_head_dim, window=options.window_size)
    latents = None if options.kv_from is not None else kept
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
    if source.window_size and (options.window_size is None or options.window_size > source.window_size):
        return f"the source keeps {source.window_size} tokens: give a `window_size` of at most {source.window_size}"
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
        summary="Multi-head latent attention (MLA): all heads' keys and values out of one cached vector per token, "
        "over everything before or within a window.",
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
        window=lambda options, dims: options.window_size,
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
            {
                **_SMALL,
                "q_lora_rank": 20,
                "both_latents": True,
                "gate": "elementwise",
                "indexer": {"num_heads": 4, "head_dim": 16, "top_k": 12},
            },
            {**_SMALL, "v_head_dim": 12, "sinks": True},
            {**_SMALL, "window_size": 8, "rope_key_norm": True, "gate": "head", "sinks": True},
            {**_SMALL, "kv_lora_rank": 12, "window_size": 8, "rope": {"traditional": False}},
            {
                **_SMALL,
                "rope": {"learned": True, "theta": 100.0},
                "log_scaling": True,
                "indexer": {"num_heads": 4, "head_dim": 16, "top_k": 12, "query_norm": True, "log_scaling": True},
            },
        ),
    ),
)
