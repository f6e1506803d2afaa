"""What attention leaves for the backward pass: scores are kept after the softmax, whether a kernel is fused or not."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Array
from axon_core.specs._saved import Saved, each, in_float32, norm_saved
from axon_core.specs._segments import BLOCK

__all__ = ["attention_saved", "latent_saved", "scores_saved"]


def scores_saved(
    tokens: int,
    heads: int,
    window: int | None,
    *,
    written_out: bool = False,
    capped: bool = False,
    chunk: int | None = None,
) -> Saved:
    """Scores of each head after the softmax, in float32 where they are written out, those under a cap, and the mask.

    With a window, or where they are written out, of every block of queries with the keys that it reaches.
    """
    whole = window is None and not written_out
    pairs = tokens * tokens if whole else _block_pairs(tokens, window or tokens)
    if chunk is not None:
        pairs = tokens // chunk * chunk * chunk + (tokens % chunk) ** 2
    softmax = Array("scores", (heads, pairs), "float32" if written_out else None)
    cap = (Array("capped", (heads, pairs), "float32"),) if capped else ()
    return (softmax, *cap, Array("mask", (pairs,), "bool"))


def _block_pairs(tokens: int, window: int) -> int:
    """Queries times the keys that their block reaches: all before, or those from the first one's window on."""
    whole, rest = divmod(tokens, BLOCK)
    growing = min(whole, (window - 1) // BLOCK + 1)
    pairs = BLOCK * BLOCK * growing * (growing + 1) // 2
    pairs += (whole - growing) * BLOCK * (BLOCK + window - 1)
    return pairs + rest * min(tokens, rest + window - 1)


def attention_saved(
    tokens: int, hidden: int, shape: tuple[int, int, int], options: Any, *, own_keys: bool, dtype: str
) -> Saved:
    """Softmax attention with `(heads, key heads, width)`; a layer that reads keys of another one keeps none."""
    heads, key_heads, width = shape
    value = options.v_head_dim or width
    queries, attended = heads * width, heads * value
    keys, values = (key_heads * width, key_heads * value) if own_keys else (0, 0)
    found = each(tokens, input=hidden, queries=queries, keys=keys, values=values, attended=attended)
    if options.rope is not None:
        rotated = options.rope.rotated(width)
        found += each(tokens, angles=rotated * (2 if own_keys else 1))
    if options.qk_norm is not None:
        learned = {"weight": options.qk_norm.weight, "offset": options.qk_norm.offset}
        found += norm_saved(tokens, queries, heads, name="q_norm", **learned)
        moved = options.k_norm_scale == "queries"
        found += each(tokens, unscaled_queries=queries if moved else 0)
        learned |= {"weight": options.qk_norm.weight and not moved}
        found += norm_saved(tokens, keys, key_heads, name="k_norm", **learned) if own_keys else ()
    if options.v_norm is not None and own_keys:
        found += in_float32(tokens, v_norm=values)
    if options.clip is not None:
        found += each(tokens, clipped=2 * (queries + keys + values))
    if options.output_norm is not None:
        found += norm_saved(tokens, attended, heads, name="output_norm", weight=False)
    if options.gate is not None:
        found += each(tokens, gate=attended if options.gate == "elementwise" else heads, gated=attended)
    found += _factors_saved(tokens, heads, queries, options)
    capped = options.softcap is not None
    written_out = capped or options.alibi is not None or options.relative is not None
    scores = scores_saved(
        tokens, heads, options.window_size, written_out=written_out, capped=capped, chunk=options.chunk_size
    )
    if written_out and options.sinks:
        # The sum that a sink is compared with is made of the scores again, and what attention gives is multiplied.
        found += (Array("summed", scores[0].shape, "float32"), *in_float32(tokens, unsunk=attended))
    if written_out and dtype != "float32":
        # Casts take the place of queries, keys and values; every block of queries has its own of what it reaches.
        reached = key_heads * (width + value) * scores[-1].shape[0] // BLOCK
        found = tuple(array for array in found if array.name not in ("queries", "keys", "values"))
        found += in_float32(tokens, cast=queries) + (Array("reached", (reached,), "float32"),)
    if options.indexer is not None and tokens > options.indexer.chosen:
        # What each head may see instead of one mask for all, a byte for a pair in each sequence.
        apart = options.indexer.num_heads > 1 and options.indexer.pooling == "max"
        masks = heads if apart else 1
        scores = (*scores[:-1], Array("chosen", (masks, tokens * tokens // 2), "float16"))
    return found + scores


def _factors_saved(tokens: int, heads: int, queries: int, options: Any) -> Saved:
    """What queries are before learned factors, and the mixtures that they carry."""
    plain, unscaled = queries if options.head_gain else 0, queries if options.log_scaling else 0
    found = each(tokens, plain_queries=plain, unscaled=unscaled)
    mixed = 0 if options.relative is None else heads * options.relative.rank
    return found + in_float32(tokens, mixtures=mixed)


def latent_saved(tokens: int, hidden: int, options: Any, dtype: str) -> Saved:
    """Attention to keys and values out of a latent: the latent, and what is made of it for every head."""
    heads, rank = options.num_heads, options.kv_lora_rank
    key, value = options.qk_nope_head_dim + options.qk_rope_head_dim, options.value_dim
    found = each(tokens, input=hidden, queries=heads * key, keys=heads * key, values=heads * value)
    found += each(tokens, attended=heads * value)
    if options.kv_from is None:
        found += each(tokens, latent=rank) + norm_saved(tokens, rank, name="latent_norm")
        if options.rope_key_norm:
            found += norm_saved(tokens, options.qk_rope_head_dim, name="rope_key_norm")
    if options.q_lora_rank is not None:
        found += each(tokens, q_latent=options.q_lora_rank) + norm_saved(tokens, options.q_lora_rank, name="q_norm")
        if options.both_latents:
            found += each(tokens, both_latents=options.query_width)
    if options.gate is not None:
        found += each(tokens, gate=options.gate_dim, gated=heads * value)
    if options.log_scaling:
        found += each(tokens, unscaled=heads * key)
    if options.rope is not None and options.rope.learned:
        width = options.rope.rotated(options.qk_rope_head_dim)
        # Cosines, sines, angles, and what they turn: parts of whole heads, or their casts.
        turned = heads * key if dtype == "float32" else width * (heads + (options.kv_from is None))
        found += in_float32(tokens, turn=3 * width // 2, turned=turned)
    else:
        found += each(tokens, angles=2 * options.qk_rope_head_dim)
    scores = scores_saved(tokens, heads, options.window_size)
    return found + (scores if options.window_size is None else scores[:-1])  # all layers have one mask of a window
