"""Attention, full or within a window: its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from axon_compose.registry import KV, Array, CacheSpec, ComponentSpec, Composite, Dims, written
from axon_core.specs._attention_options import AttentionOptions, SlidingWindowAttentionOptions
from axon_core.specs._flops import attention_flops, chunk_pairs, pairs, product_flops
from axon_core.specs._heads import (
    ALiBiOptions,
    BiasOptions,
    GateActivationName,
    GateName,
    HeadNormOptions,
    RelativeOptions,
    TemperatureOptions,
    VNormOptions,
    head_shape,
    numbers_of_heads,
)
from axon_core.specs._indexer import block_params, indexer_cache, small_blocks
from axon_core.specs._learning import ATTENTION
from axon_core.specs._rope import RopeOptions
from axon_core.specs._saved_attention import attention_saved
from axon_core.specs._small import limited, small_heads, small_rope
from axon_core.specs.splits.attention import attention_split
from axon_core.specs.transfers.attention import attention_transfers

__all__ = [
    "SPECS",
    "ALiBiOptions",
    "AttentionOptions",
    "BiasOptions",
    "GateActivationName",
    "GateName",
    "HeadNormOptions",
    "RelativeOptions",
    "RopeOptions",
    "SlidingWindowAttentionOptions",
    "TemperatureOptions",
    "VNormOptions",
    "attention_params",
    "head_shape",
]


def attention_params(options: AttentionOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters."""
    heads, kv_heads, width = head_shape(options, dims)
    hidden, value = dims.hidden_size, options.v_head_dim or width
    shapes = {"q": (heads * width, hidden), "o": (hidden, heads * value)}
    if options.kv_from is None:
        shapes |= {"k": (kv_heads * width, hidden)} | ({} if options.k_eq_v else {"v": (kv_heads * value, hidden)})
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        found[f"{name}_proj.weight"] = shape
        if getattr(options.bias, name):
            found[f"{name}_proj.bias"] = shape[:1]
        count = heads if name == "q" else kv_heads
        if options.qk_norm and name in "qk":
            found |= {f"{name}_norm.{learned}": of for learned, of in options.qk_norm.shapes(count, width).items()}
    if options.kv_from and options.qk_norm and options.k_norm_scale == "queries":
        found |= {f"k_norm.{learned}": of for learned, of in options.qk_norm.shapes(heads, width).items()}
    if options.gate is not None:
        gates = heads * (1 if options.gate == "head" else value)
        found["g_proj.weight"] = (gates, hidden)
        if options.bias.g:
            found["g_proj.bias"] = (gates,)
    if options.relative is not None:
        found |= options.relative.shapes(heads, hidden)
    if options.indexer is not None:
        if options.rope is not None and (rotated := options.rope.rotated(width)) > options.indexer.head_dim:
            raise ValueError(f"`indexer.head_dim` ({options.indexer.head_dim}) is less than the {rotated} rotated ones")
        found |= block_params(options.indexer, hidden)
    return found | numbers_of_heads(options, heads)


def _flops(options: AttentionOptions, dims: Dims, tokens: int, context: int) -> int:
    heads, _, width = head_shape(options, dims)
    shapes = attention_params(options, dims)
    own = {name: shapes.pop(name) for name in list(shapes) if name.startswith("indexer.")}
    projected = product_flops(shapes, tokens)
    chunk = options.chunk_size
    seen = chunk_pairs(tokens, context, chunk) if chunk else pairs(tokens, context, options.window_size)
    if options.indexer is not None:
        projected += options.indexer.flops(own, tokens, context)
        seen = pairs(tokens, context, options.indexer.chosen)
    if options.relative is not None:
        scored = pairs(tokens, context, min(options.relative.extent, options.window_size or context))
        projected += 2 * heads * options.relative.rank * scored
    return projected + attention_flops(heads, width, options.v_head_dim or width, seen)


def _saved(options: AttentionOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    own = options.kv_from is None
    return attention_saved(tokens, dims.hidden_size, head_shape(options, dims), options, own_keys=own, dtype=dtype)


def _cache(options: AttentionOptions, dims: Dims) -> CacheSpec | None:
    _, kv_heads, width = head_shape(options, dims)
    if options.kv_from:
        return None
    cache = KV(kv_heads, width, options.v_head_dim, window=options.window_size)
    return cache if options.indexer is None else Composite((cache, indexer_cache(options.indexer)))


def _accepts(options: AttentionOptions, source: Any, dims: Dims) -> str | None:
    """Why the keys of `source` cannot serve, or None: they come rotated, in its widths and within its window."""
    if hasattr(source, "kv_lora_rank"):
        return "it publishes latents, which only `latent_attention` reads"
    if not isinstance(source, AttentionOptions):
        return None
    if source.indexer is not None:
        return "each of its queries chooses what it attends to"
    heads, _, width = head_shape(options, dims)
    _, kv_heads, source_width = head_shape(source, dims)
    if width != source_width:
        return f"`head_dim` is {width}, that of the source {source_width}"
    if (options.v_head_dim or width) != (source.v_head_dim or width):
        return "`v_head_dim` differs from that of the source"
    if heads % kv_heads:
        return f"`num_heads` ({heads}) is not a multiple of the source's `num_kv_heads` ({kv_heads})"
    if options.num_kv_heads not in (None, kv_heads):
        return f"`num_kv_heads` is {options.num_kv_heads}, that of the source {kv_heads}"
    if options.k_norm_scale != source.k_norm_scale:
        return "`k_norm_scale` differs from that of the source, whose keys come with their scale or without it"
    if options.rope != source.rope:
        return "`rope` differs from that of the source, whose keys are already rotated"
    if source.window_size and (options.window_size is None or options.window_size > source.window_size):
        return f"the source keeps {source.window_size} tokens: give a `window_size` of at most {source.window_size}"
    return None


def _shrink(options: AttentionOptions, dims: Dims) -> dict[str, Any]:
    """Small sizes with the same structure; one width and few head counts, so that sources and readers still fit."""
    small = written(options) | limited(options, {"window_size": 8, "chunk_size": 64}) | {"head_dim": 16}
    small |= small_heads(options.num_heads, options.num_kv_heads)
    if options.v_head_dim is not None:
        small["v_head_dim"] = 12
    if options.relative is not None:
        small["relative"] = written(options.relative) | limited(options.relative, {"rank": 4, "extent": 16})
    if isinstance(small.get("rope"), Mapping):
        small["rope"] = small_rope(small["rope"], options.head_dim, 16)
    if options.indexer is not None:
        kv_heads = options.num_kv_heads or options.num_heads
        small["indexer"] = small_blocks(options.indexer, kv_heads, small.get("num_kv_heads") or small["num_heads"])
    return small


_LLAMA3: Final = {"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
_YARN: Final = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}

_ATTENTION: Final = ComponentSpec(
    name="attention",
    module_name="self_attn",
    kind="layer",
    options=AttentionOptions,
    module="axon_core.attention:Attention.from_options",
    learning=ATTENTION,
    summary="Causal attention with rotary positions (RoPE) unless `rope: false`; grouped-query, and optionally a "
    "window, biases, norms, gates and sinks.",
    source='Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762); '
    "groups: Ainslie et al. 2023 (arXiv:2305.13245); RoPE: Su et al. 2021 (arXiv:2104.09864)",
    cache=_cache,
    params=attention_params,
    flops=_flops,
    saved=_saved,
    reads={"offset": None, "kv": "kv_from"},
    writes=("kv",),
    accepts=_accepts,
    window=lambda options, dims: options.window_size,
    chunk=lambda options, dims: options.chunk_size,
    chosen=lambda options, dims: options.indexer and options.indexer.chosen,
    # With a window the layer cuts the band itself; a group without one is always dense.
    mask="banded",
    # Norms of single heads have two axes when each head has a scale of its own.
    unquantized=("q_norm", "k_norm", "indexer.q_norm", "indexer.k_norm"),
    transfers=attention_transfers(attention_params),
    split=attention_split(attention_params),
    shrink=_shrink,
    examples=(
        {"num_heads": 4},
        {"num_heads": 4, "num_kv_heads": 2, "bias": True, "qk_norm": True},
        {
            "num_heads": 4,
            "num_kv_heads": 1,
            "head_dim": 32,
            "bias": {"q": True, "v": True},
            "qk_norm": {"eps": 1e-5},
        },
        {"num_heads": 2, "window_size": 8, "rope": {"theta": 1e6, "fraction": 0.5, "traditional": True}},
        {"num_heads": 4, "rope": {"theta": 5e5, "scaling": _LLAMA3}, "scale": 0.1},
        {"num_heads": 4, "rope": {"dims": 8, "scaling": _YARN}},
        {"num_heads": 4, "rope": {"fraction": 0.5, "scaling": {"type": "proportional", "factor": 2.0}}},
        {"num_heads": 4, "rope": False},
        {"num_heads": 4, "num_kv_heads": 2, "softcap": 5.0, "window_size": 8},
        {"num_heads": 4, "num_kv_heads": 2, "softcap": 5.0},
        {"num_heads": 4, "num_kv_heads": 2, "sinks": True, "gate": "head"},
        {"num_heads": 4, "num_kv_heads": 2, "gate": "head", "gate_activation": "softplus"},
        {"num_heads": 4, "gate": "elementwise", "bias": {"q": True, "g": True}},
        {"num_heads": 4, "num_kv_heads": 2, "input_scale": 0.8, "key_scale": 0.4},
        {"num_heads": 4, "sinks": True, "window_size": 8, "rope": {}, "gate": "elementwise", "clip": 4.0},
        {"num_heads": 4, "num_kv_heads": 2, "qk_norm": {"over": "all"}, "v_norm": True},
        {
            "num_heads": 4,
            "num_kv_heads": 2,
            "qk_norm": {"type": "layer_norm", "per_head": True, "when": "after_rope"},
        },
        {"num_heads": 4, "num_kv_heads": 2, "qk_norm": {"type": "layer_norm", "bias": True}},
        {"num_heads": 4, "qk_norm": {"weight": False}},
        {"num_heads": 4, "qk_norm": {"offset": 1.0}},
        {"num_heads": 4, "num_kv_heads": 2, "k_eq_v": True, "bias": True, "qk_norm": True, "v_norm": True},
        {"num_heads": 6, "num_kv_heads": 2, "head_dim": 8, "rope": False, "alibi": {"scale": 0.5}},
        {"num_heads": 4, "temperature": {"scale": 0.5, "length": 4, "shift": 1}},
        {
            "num_heads": 4,
            "num_kv_heads": 2,
            "rope": False,
            "relative": {"rank": 3, "extent": 10},
            "temperature": {"scale": 0.5, "length": 4, "shift": 1, "smooth": True},
        },
        {"num_heads": 4, "sinks": True, "window_size": 8, "relative": {"rank": 4, "extent": 5}},
        {
            "num_heads": 4,
            "num_kv_heads": 2,
            "indexer": {"num_heads": 2, "head_dim": 16, "block_size": 4, "top_k": 3, "norm": {"offset": 1.0}},
        },
        {
            "num_heads": 4,
            "num_kv_heads": 2,
            "sinks": True,
            "indexer": {"num_heads": 1, "head_dim": 24, "block_size": 3, "top_k": 4, "local_blocks": 2, "norm": False},
        },
        {"num_heads": 4, "num_kv_heads": 2, "v_head_dim": 12, "value_scale": 0.7, "gate": "elementwise"},
        {"num_heads": 4, "v_head_dim": 12, "v_norm": True, "clip": 2.0},
        {"num_heads": 4, "num_kv_heads": 2, "chunk_size": 6},
        {"num_heads": 4, "v_head_dim": 24, "window_size": 8, "sinks": True, "rope": {"reverse": True}},
        {"num_heads": 4, "num_kv_heads": 2, "output_norm": True, "gate": "elementwise", "head_gain": True},
        {"num_heads": 4, "num_kv_heads": 2, "qk_norm": {"when": "after_rope"}, "k_norm_scale": "queries"},
        {"num_heads": 4, "num_kv_heads": 2, "log_scaling": True, "rope": False},
        {
            "num_heads": 4,
            "num_kv_heads": 2,
            "indexer": {"num_heads": 3, "head_dim": 16, "block_size": 4, "top_k": 3, "pooling": "mean"},
        },
    ),
)

SPECS: Final = (
    _ATTENTION,
    replace(
        _ATTENTION,
        name="sliding_window_attention",
        options=SlidingWindowAttentionOptions,
        module="axon_core.attention:SlidingWindowAttention.from_options",
        summary="Causal attention to the last `window_size` tokens, without positions (NoPE) unless `rope: true`; time "
        "and memory linear in the length.",
        source='Beltagy et al. 2020, "Longformer" (arXiv:2004.05150); '
        'Jiang et al. 2023, "Mistral 7B" (arXiv:2310.06825)',
        examples=(
            {"num_heads": 4, "window_size": 8},
            {"num_heads": 4, "num_kv_heads": 2, "window_size": 1, "rope": {}},
        ),
    ),
)
