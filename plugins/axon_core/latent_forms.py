"""Attention to latents in its two forms, in blocks of queries.

Scores of a long prompt are never held all at once, and within a window no block reads what none of its queries sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from axon_core.cpu import fast
from axon_core.packed_caches import group_and_bits, packed_product
from axon_core.scores import attend
from axon_core.selection import visible
from axon_core.specs._segments import BLOCK
from axon_core.window import Mask, block_rows

__all__ = ["absorbed", "chosen_tokens", "expanded", "in_blocks", "plain"]


def chosen_tokens(latent: Any, k_pe: Any, mask: mx.array, where: mx.array | None) -> tuple[Any, Any, mx.array]:
    """What a selection leaves: the chosen tokens alone where there is a single query, else a mask."""
    if where is None or not isinstance(latent, mx.array):
        return latent, k_pe, mask
    rows = where.swapaxes(-1, -2)
    latent, k_pe = (mx.take_along_axis(a, rows, axis=2) for a in (latent, k_pe))
    return latent, k_pe, mx.take_along_axis(mask, where, axis=-1)


def in_blocks(
    attention: Callable[..., mx.array],
    queries: tuple[mx.array, ...],
    keys: tuple[Any, ...],
    total: int,
    mask: Mask,
    window: int | None = None,
) -> mx.array:
    """`attention(*queries, *keys, mask)`, block by block.

    Args:
        attention: `expanded` or `absorbed`.
        queries: Arrays (B, H, L, ·), of which each block has some rows.
        keys: Arrays (B, ·, S, ·), or what a quantised cache hands out; a block gets those up to it, within the window.
        total: S.
        mask: None or "causal" for the causal mask, or a boolean array that broadcasts to (B, H, L, S).
        window: Tokens that a query sees; all unless given. An array says so too.

    Returns:
        (B, H, L, ·).
    """
    batch, heads, length, _ = queries[0].shape
    rows = block_rows(batch, heads, total)
    if window is not None or fast():
        rows = min(rows, BLOCK)  # fewer scores that no query sees
    outputs: list[mx.array] = []
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        block = [query[:, :, start:stop] for query in queries]
        if outputs:
            block = mx.depends(block, outputs[-1:])  # one block's scores at a time, not all side by side
        end = total - length + stop
        first = 0 if window is None else max(0, end - (stop - start) + 1 - window)
        if isinstance(mask, mx.array):
            end = total if window is None else end
            seen: Any = visible(mask, start, stop, length, total)
            seen = seen if seen is None else seen[..., first:end]
        else:
            seen = "causal"
        outputs.append(attention(*block, *tree_map(lambda a, first=first, end=end: a[:, :, first:end], keys), seen))
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)


def expanded(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask, sinks: mx.array | None) -> mx.array:
    """Attention with keys and values per head; queries come with the scale."""
    return attend(queries, keys, values, mask, scale=1.0, sinks=sinks)


def absorbed(
    q_latent: mx.array, q_pe: mx.array, latent: Any, k_pe: Any, mask: Mask, sinks: mx.array | None
) -> mx.array:
    """Attention to the latents themselves; (B, H, rows, kv_lora_rank). No fused kernel is as wide as a latent."""
    rows, rank = q_latent.shape[2:]
    scores = _product(q_latent, latent, rank) + _product(q_pe, k_pe, q_pe.shape[-1])
    if isinstance(mask, str):
        total = scores.shape[-1]
        mask = mx.arange(total - rows, total)[:, None] >= mx.arange(total)
    if mask is not None:
        # A finite least number, not -inf: a query on padding sees nothing, and its output has to be finite.
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
    if sinks is None:
        return _product(mx.softmax(scores, axis=-1, precise=True), latent, rank, transpose=False)
    sink = mx.broadcast_to(sinks.astype(scores.dtype)[:, None, None], (*scores.shape[:3], 1))
    weights = mx.softmax(mx.concatenate([scores, sink], axis=-1), axis=-1, precise=True)[..., :-1]
    return _product(weights, latent, rank, transpose=False)


def _product(x: mx.array, held: Any, width: int, transpose: bool = True) -> mx.array:
    """`x @ heldᵀ`, or without transposing, of every head with the one `held` (B, 1, S, width), quantised or not."""
    batch, heads, rows, _ = x.shape
    flat = x.reshape(batch, 1, heads * rows, -1)  # one matrix for all heads
    if isinstance(held, mx.array):
        y = flat @ (held.swapaxes(-1, -2) if transpose else held)
    else:
        y = packed_product(flat, held, group_and_bits(held, width), transpose=transpose)
    return y.reshape(batch, heads, rows, -1)


def plain(held: Any, width: int) -> mx.array:
    """What a cache holds (B, 1, S, width), as an array also where the cache is quantised."""
    if isinstance(held, mx.array):
        return held
    group_size, bits = group_and_bits(held, width)
    packed, scales, biases = held
    return mx.dequantize(packed, scales, biases, group_size, bits)
