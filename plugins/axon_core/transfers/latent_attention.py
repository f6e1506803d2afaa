r"""Latent attention out of attention, by a singular value decomposition of keys and values together.

Keys and values of all heads are :math:`M x` with M the rows of both. Of all matrices of rank r the one nearest to M is
:math:`U_r S_r V_r^T` (Eckart and Young 1936), so the latent is :math:`V_r^T x` and :math:`U_r S_r` has the heads' keys
(`embed_q`) and values (`unembed_out`). The error :math:`\|M - M_r\|_F` is the root of the sum of the squares of the
singular values that were dropped. Keys are first brought to the size of the values, which share the rank fairly then
(Meng et al. 2025, "TransMLA", arXiv:2502.07864).

* The layer has a norm on the latent. :math:`V_r^T x` has the size :math:`\sqrt{m}` for inputs of unit variance, and the
  weight of the norm is :math:`\sqrt{m + \epsilon}`, which undoes it on average; with a large `norm_eps` it is undone
  exactly, and trained models can be moved to a small one later. Weights are powers of two, what is left is in the other
  matrices, so that nothing is lost in bfloat16.
* Rotation: the layer has one rotated key for all heads. Of a head's pairs every so many-th is kept, which have just the
  frequencies of a narrower rotation (Ji et al. 2025, "MHA2MLA", arXiv:2502.14837, "uniform"), and the shared key is the
  mean of the heads' keys. All other dimensions go without rotation.
* Norms of queries and keys: their scale is kept, and the division by the size is that of an average input.
* Biases of keys and values are one more column of M.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2, sqrt
from typing import Any

import numpy as np

from axon_compose.registry import Case
from axon_core.specs.transfers.latent import rotated_pairs, same_gate
from axon_core.transfers._heads import Array, read_attention, spread

__all__ = ["from_attention"]

#: A sink's score of which the exponential is 0 beside that of any other, and which float16 holds.
_NO_SINK = -30000.0


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Queries as they are, keys and values through the nearest latent."""
    options, heads = case.options, case.options.num_heads
    read = read_attention(case, arrays)
    turned, still = _dimensions(case, read.q.shape[1])
    old_scale = case.source_options.scale or read.q.shape[1] ** -0.5
    queries = _queries(case, _unit(case, read.q), turned, still) * np.float32(old_scale / options.softmax_scale)
    keys, k_bias = _unit(case, read.k), read.k_bias if options.bias else np.zeros_like(read.k_bias)
    v_bias = read.v_bias if options.bias else np.zeros_like(read.v_bias)
    made = _latent(case, (keys[:, still], k_bias[:, still]), (read.v, v_bias))
    shared, shared_bias = (a[:, turned].mean(axis=0) for a in (keys, k_bias))
    padding = options.qk_rope_head_dim - len(turned)
    rows = [made["kv_a_proj_with_mqa.weight"], np.pad(shared, ((0, padding), (0, 0)))]
    made["kv_a_proj_with_mqa.weight"] = np.concatenate(rows)
    if options.bias:
        rows = [made["kv_a_proj_with_mqa.bias"], np.pad(shared_bias, (0, padding))]
        made["kv_a_proj_with_mqa.bias"] = np.concatenate(rows)
        made["o_proj.bias"] = read.o_bias
    old_heads = read.o.shape[1]
    output = spread(read.o, heads, axis=1) * np.float32(old_heads / heads)
    made["o_proj.weight"] = output.reshape(len(output), -1)
    return made | _query_parameters(case, queries) | _rest(case, arrays, made["o_proj.weight"])


def _dimensions(case: Case, width: int) -> tuple[list[int], list[int]]:
    """Dimensions of a head in the source: those that stay rotated, in the new layer's order, and all others."""
    pairs = rotated_pairs(case)
    assert not isinstance(pairs, str), pairs
    before, after = pairs
    if not after:
        return [], list(range(width))
    kept = range(0, before, before // after)
    first = [2 * pair if case.source_options.rope.traditional else pair for pair in kept]
    second = [a + 1 if case.source_options.rope.traditional else a + before for a in first]
    if case.options.rope.traditional:
        turned = [each for both in zip(first, second, strict=True) for each in both]
    else:
        turned = [*first, *second]
    return turned, [each for each in range(width) if each not in set(turned)]


def _unit(case: Case, rows: Array) -> Array:
    """Heads (n, W, D) whose norm divided by their size: by that of an average input instead."""
    if case.source_options.qk_norm is None:
        return rows
    squares = np.square(rows.astype(np.float64)).sum(axis=(1, 2), keepdims=True) / rows.shape[1]
    return (rows / np.sqrt(squares)).astype(np.float32)


def _queries(case: Case, queries: Array, turned: list[int], still: list[int]) -> Array:
    """(H, W, D) to rows of the new layer, (H', nope + rope, D)."""
    options = case.options
    parts = (queries[:, still], options.qk_nope_head_dim), (queries[:, turned], options.qk_rope_head_dim)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0))) for part, width in parts]
    return spread(np.concatenate(padded, axis=1), options.num_heads)


def _query_parameters(case: Case, queries: Array) -> dict[str, Array]:
    """The projection of the queries, in one or through a latent of their own."""
    options, flat = case.options, queries.reshape(-1, queries.shape[-1])
    rank = options.q_lora_rank
    if rank is None:
        return {"q_proj.weight": flat}
    left, right = _low_rank(flat, rank)
    weight, rest = _undone(right, options.norm_eps)
    made = {
        "q_a_proj.weight": right,
        "q_a_layernorm.weight": np.full(rank, weight, np.float32),
        "q_b_proj.weight": left * np.float32(rest / options.lora_scale.q),
    }
    return made | ({"q_a_proj.bias": np.zeros(rank, np.float32)} if options.bias else {})


def _latent(case: Case, keys: tuple[Array, Array], values: tuple[Array, Array]) -> dict[str, Array]:
    """The projection to the latent, its norm, and each head's keys and values out of it; weights with biases."""
    options, rank, heads = case.options, case.options.kv_lora_rank, case.options.num_heads
    kv_heads = len(values[0])
    size = float(np.linalg.norm(keys[0]))
    balance = float(np.linalg.norm(values[0])) / size if size else 1.0
    key_rows, value_rows = (_flat(np.concatenate([w, b[..., None]], axis=-1)) for w, b in (keys, values))
    rows = np.concatenate([key_rows * np.float32(balance), value_rows])
    rows = rows if options.bias else rows[:, :-1]
    left, right = _low_rank(rows, rank)
    hidden = case.dims.hidden_size
    weight, rest = _undone(right[:, :hidden], options.norm_eps)
    left = left * np.float32(rest / options.lora_scale.kv)
    split = len(key_rows)
    made_keys = (left[:split] / np.float32(balance)).reshape(kv_heads, -1, rank)
    padding = options.qk_nope_head_dim - made_keys.shape[1]
    made_keys = np.pad(made_keys, ((0, 0), (0, padding), (0, 0)))
    made = {
        "kv_a_proj_with_mqa.weight": right[:, :hidden],
        "kv_a_layernorm.weight": np.full(rank, weight, np.float32),
        "embed_q.weight": np.ascontiguousarray(spread(made_keys, heads).swapaxes(1, 2)),
        "unembed_out.weight": spread(left[split:].reshape(kv_heads, -1, rank), heads),
    }
    return made | ({"kv_a_proj_with_mqa.bias": right[:, hidden]} if options.bias else {})


def _flat(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _low_rank(matrix: Array, rank: int) -> tuple[Array, Array]:
    """The nearest product of (rows, rank) and (rank, columns); the second has orthonormal rows, or zeros."""
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    kept = min(rank, len(s))
    left, right = np.zeros((len(matrix), rank)), np.zeros((rank, matrix.shape[1]))
    left[:, :kept], right[:kept] = u[:, :kept] * s[:kept], v[:kept]
    return left.astype(np.float32), right.astype(np.float32)


def _undone(right: Array, eps: float) -> tuple[float, float]:
    """The weight of a norm that undoes it on average, a power of two, and the factor that is left."""
    size = sqrt(float(np.square(right.astype(np.float64)).sum()) / len(right) + eps)
    weight = 2.0 ** round(log2(size))
    return weight, size / weight


def _rest(case: Case, arrays: Mapping[str, Array], output: Array) -> dict[str, Array]:
    """Gate and sinks, at neutral values where the source has none."""
    options: Any = case.options
    made = {}
    if options.sinks:
        sinks = arrays.get("sinks")
        no_sinks = np.full(options.num_heads, _NO_SINK, np.float32)
        made["sinks"] = no_sinks if sinks is None else spread(sinks, options.num_heads)
    if options.gate is not None:
        gate = arrays.get("g_proj.weight") if same_gate(case) else None
        if gate is None:
            made["g_proj.weight"] = np.zeros((options.gate_dim, case.dims.hidden_size), np.float32)
            made["o_proj.weight"] = output * np.float32(2)
        else:
            made["g_proj.weight"] = gate
    return made
