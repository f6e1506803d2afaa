"""Softmax attention of queries to keys, with what some models add to its scores: a cap, sinks, ALiBi, relative scores.

* A cap bounds the scores, `cap * tanh(scores / cap)`, before the mask (Gemma 2). No fused kernel has it, so scores are
  written out, in float32 whatever the inputs are: a score near a cap of 50 in bfloat16 is off by up to an eighth.
* A sink is a learned score of each head that takes part in the softmax but has no value (gpt-oss; the "off by one" of
  Miller, 2023): `weights = exp(scores) / (sum(exp(scores)) + exp(sink))`, so a head may attend to nothing.
* ALiBi (Press et al., 2022) takes from each score the distance of the key times the slope of the head. Adding the key's
  index instead is the same, for the two differ by one number in a row of the softmax. Scores are written out in
  float32 for it, where an index of thousands times a slope is still exact enough.
* Relative scores depend on the distance of the key as each query chooses (`axon_core.relative`). They too are written
  out in float32, for a block of queries at a time, out of a few numbers that each query carries behind its own.

MLX has no fused attention for the CPU: it writes scores out as well, and its softmax takes 15 ns for each. There many
scores are written out here, with the exponential of `axon_core.elementary`, at a third of the time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import mlx.core as mx

from axon_core.cpu import fast
from axon_core.elementary import exp, tanh
from axon_core.kernels import native_attention, native_causal_attention
from axon_core.linear import transposed_factor
from axon_core.packed_caches import Packing, group_and_bits, packed_product, sums_in_half, widened
from axon_core.relative import Relative, relative_scores
from axon_core.window import BLOCK, Mask, banded_attention, blockwise_attention

__all__ = ["attend", "causal_attention"]

#: Scores from which on the exponential of `axon_core.elementary` is worth its operations.
_MANY: Final = 2**14


def causal_attention(
    queries: mx.array,
    keys: Any,
    values: Any,
    mask: Mask,
    *,
    window: int | None = None,
    left_padding: mx.array | None = None,
    scale: float,
    softcap: float | None = None,
    sinks: mx.array | None = None,
    slopes: mx.array | None = None,
    relative: Relative | None = None,
) -> mx.array:
    """Attend to what is before each query, in blocks of queries where scores would be too many at once.

    Args:
        queries: (B, H, L, head_dim); with relative scores each followed by its mixture of profiles.
        keys: As for `attend`, the last L of them those of the queries.
        values: The same for values.
        mask: Booleans that broadcast to (B, H, L, S) and are taken as they are; else it is the causal one within the
            window.
        window: Tokens that a query sees, itself included; all unless given.
        left_padding: (B,) index of each row's first real key; keys before it are not seen.
        scale: Factor of the scores.
        softcap: Bound of the scores.
        sinks: (H,) score of each head's sink.
        slopes: (H,) slope of each head, for ALiBi.
        relative: Scores by the distance of the key.

    Returns:
        (B, H, L, value_dim), in the type of `queries`.
    """
    scores = partial(attend, scale=scale, softcap=softcap, sinks=sinks, slopes=slopes, relative=relative)
    by_distance = slopes is not None or relative is not None
    cut = queries.shape[2] > BLOCK and _written_out(queries, keys, softcap, sinks, by_distance)
    if isinstance(mask, mx.array):
        return blockwise_attention(queries, keys, values, scores, mask) if cut else scores(queries, keys, values, mask)
    if softcap is None and sinks is None and left_padding is None and not by_distance:
        y = native_causal_attention(queries, keys, values, scale, window)
        if y is not None:
            return y
    within = window is None or (keys if isinstance(keys, mx.array) else keys[0]).shape[2] <= window
    if cut or not within or left_padding is not None:
        return banded_attention(queries, keys, values, scores, window, left_padding)
    return scores(queries, keys, values, None if queries.shape[2] == 1 else "causal")


def _written_out(
    queries: mx.array, keys: Any, softcap: float | None, sinks: mx.array | None, by_distance: bool
) -> bool:
    """Whether scores are arrays of their own, so that a long prompt has to be cut into blocks of queries."""
    if softcap is not None or by_distance:
        return True
    if not isinstance(keys, mx.array):
        return sinks is not None
    return queries.dtype == keys.dtype == mx.float32 and fast()


def attend(
    queries: mx.array,
    keys: Any,
    values: Any,
    mask: Mask,
    ahead: int = 0,
    *,
    scale: float,
    softcap: float | None = None,
    sinks: mx.array | None = None,
    slopes: mx.array | None = None,
    relative: Relative | None = None,
) -> mx.array:
    """Attend, fused where a kernel can.

    Args:
        queries: (B, H, L, head_dim); with relative scores each followed by its mixture of profiles.
        keys: (B, G, S, head_dim), G a divisor of H; or (packed, scales, biases) from a quantised cache.
        values: The same for values, quantised as keys are.
        mask: None, "causal" (the last query is at the last key), or booleans that broadcast to (B, H, L, S).
        ahead: Keys after that of the last query.
        scale: Factor of the scores.
        softcap: Bound of the scores.
        sinks: (H,) score of each head's sink.
        slopes: (H,) slope of each head, for ALiBi; keys are in temporal order then.
        relative: Scores by the distance of the key.

    Returns:
        (B, H, L, value_dim), in the type of `queries`.
    """
    if not isinstance(keys, mx.array) and sums_in_half(queries):
        again = partial(attend, scale=scale, softcap=softcap, sinks=sinks, slopes=slopes, relative=relative)
        return again(queries.astype(mx.float32), widened(keys), widened(values), mask, ahead).astype(queries.dtype)
    if relative is not None:
        queries, mixtures = mx.split(queries, [queries.shape[-1] - len(relative.profiles)], axis=-1)
    by_distance = slopes is not None or relative is not None
    if mask is None and softcap is None and not by_distance:
        y = native_attention(queries, keys, values, scale, sinks)
        if y is not None:
            return y
    packing = None if isinstance(keys, mx.array) else group_and_bits(keys, queries.shape[-1])
    # mlx-lm's attention to quantised keys knows no other width of values.
    one_width = packing is None or keys[0].shape[-1] == values[0].shape[-1]
    if one_width and not _written_out(queries, keys, softcap, sinks, by_distance):
        return _fused(queries, keys, values, mask, scale, sinks)
    scores = _product(queries.astype(mx.float32) * scale, keys, packing, transpose=True)
    if softcap is not None:
        scores = softcap * tanh(scores / softcap)
    if slopes is not None:
        scores = scores + slopes[:, None, None] * mx.arange(scores.shape[-1])
    if relative is not None:
        scores = scores + relative_scores(mixtures, relative, scores.shape[-1], ahead)
    if isinstance(mask, str):
        length, total = scores.shape[2:]
        mask = mx.arange(total - length, total)[:, None] >= mx.arange(total)
    if mask is not None:
        # Finite: a row without any key, padding that is never read, must not become NaN.
        scores = mx.where(mask, scores, mx.finfo(mx.float32).min)
    weigh = _weighed if scores.size >= _MANY and fast() else _weighed_by_softmax
    return weigh(scores, values, packing, sinks).astype(queries.dtype)


def _weighed(scores: mx.array, values: Any, packing: Packing | None, sinks: mx.array | None) -> mx.array:
    """Means of the values, whose weights are divided by their sum only at the end."""
    highest = mx.stop_gradient(scores.max(axis=-1, keepdims=True))
    if sinks is not None:
        sinks = sinks.astype(mx.float32)[:, None, None]
        highest = mx.maximum(highest, mx.stop_gradient(sinks))
    weights = exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + mx.exp(sinks - highest)
    return _product(weights, values, packing, transpose=False) / total


def _weighed_by_softmax(scores: mx.array, values: Any, packing: Packing | None, sinks: mx.array | None) -> mx.array:
    """The same by MLX's softmax, which is one kernel on a GPU."""
    y = _product(mx.softmax(scores, axis=-1), values, packing, transpose=False)
    if sinks is None:
        return y
    every = mx.logsumexp(scores, axis=-1, keepdims=True)
    return y * mx.sigmoid(every - sinks.astype(mx.float32)[:, None, None])


def _fused(queries: mx.array, keys: Any, values: Any, mask: Mask, scale: float, sinks: mx.array | None) -> mx.array:
    """Attend with the kernels of MLX, or of mlx-lm for quantised keys, which has no sinks."""
    if isinstance(keys, mx.array):
        sinks = None if sinks is None else sinks.astype(queries.dtype)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
    from mlx_lm.models.base import quantized_scaled_dot_product_attention

    group_size, bits = group_and_bits(keys, queries.shape[-1])
    # It multiplies the array that it is given by its scale.
    return quantized_scaled_dot_product_attention(
        queries * scale, keys, values, scale=1.0, mask=mask, group_size=group_size, bits=bits
    )


def _product(x: mx.array, other: Any, packing: Packing | None, *, transpose: bool) -> mx.array:
    """Multiply (B, H, L, n) by each group's matrix of `other` (B, G, S, width), or its transpose; float32.

    Heads of a group are stacked as rows of one matrix and taken apart at once, so that masks keep their four axes.
    """
    batch, heads, length, _ = x.shape
    groups = (other if isinstance(other, mx.array) else other[0]).shape[1]
    rows = x.reshape(batch, groups, heads // groups * length, -1)
    if isinstance(other, mx.array):
        other = other.astype(mx.float32)
        y = rows @ (transposed_factor(other) if transpose else other)
    else:
        assert packing is not None
        y = packed_product(rows, other, packing, transpose=transpose)
    return y.reshape(batch, heads, length, -1)
