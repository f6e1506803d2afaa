r"""Latent attention out of attention, by a singular value decomposition of keys and values together.

Keys and values of all heads are :math:`M x` with M the rows of both. Of all matrices of rank r the one nearest to M is
:math:`U_r S_r V_r^T` (Eckart and Young 1936), so the latent is :math:`V_r^T x` and :math:`U_r S_r` has the heads' keys
(`embed_q`) and values (`unembed_out`). The error :math:`\|M - M_r\|_F` is the root of the sum of the squares of the
singular values that were dropped. Keys are first brought to the size of the values, which share the rank fairly then
(Meng et al. 2025, "TransMLA", arXiv:2502.07864).

* The layer has a norm on the latent. :math:`V_r^T x` has the size :math:`s \sqrt{m}` for inputs of the size s, and the
  weight of the norm is :math:`\sqrt{m s^2 + \epsilon}`, which undoes it on average. A large `norm_eps` undoes it
  exactly and needs no s; a small one needs s as a setting (`reads`). Weights are powers of two, what is left is in
  the other matrices, so that nothing is lost in bfloat16.
* Rotation: the layer has one rotated key for all heads. Of a head's pairs evenly spaced ones are kept, which have just
  the frequencies of a narrower rotation (Ji et al. 2025, "MHA2MLA", arXiv:2502.14837, "uniform"), and the shared key
  is what the heads' keys have in common (`axon_core.transfers.aligned_heads`). All other dimensions go without
  rotation.
* Norms of queries and keys: their scale is kept, and the division by the size is that of an average input (of the size
  `reads` where it is given).
* Biases of keys and values are one more column of M.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2, sqrt
from typing import Any

import numpy as np

from axon_compose.registry import Case
from axon_core.specs.transfers.latent import rotated_pairs, same_gate
from axon_core.transfers._heads import NO_SINK, Array, Projections, read_attention, spread
from axon_core.transfers.aligned_heads import shared_pairs

__all__ = ["from_attention"]


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Queries as they are, keys and values through the nearest latent."""
    options = case.options
    read = read_attention(case, arrays)
    queries, keys, key_bias = _normed(case, arrays, read)
    k_bias, v_bias = (bias if options.bias else np.zeros_like(bias) for bias in (key_bias, read.v_bias))
    first, second = _pairs(case)
    still = [each for each in range(keys.shape[1]) if each not in {*first, *second}]
    shared, turned = _rotated(case, np.concatenate([keys, k_bias[..., None]], axis=-1), queries, first, second)
    made = _latent(case, (keys[:, still], k_bias[:, still]), (read.v, v_bias))
    padding = options.qk_rope_head_dim - len(shared)
    for name, rows in (("weight", shared[:, :-1]), ("bias", shared[:, -1])):
        if f"kv_a_proj_with_mqa.{name}" in made:
            padded = np.pad(rows, ((0, padding), *[(0, 0)] * (rows.ndim - 1)))
            made[f"kv_a_proj_with_mqa.{name}"] = np.concatenate([made[f"kv_a_proj_with_mqa.{name}"], padded])
    if options.bias:
        made["o_proj.bias"] = read.o_bias
    output = spread(read.o, options.num_heads, axis=1) * np.float32(read.o.shape[1] / options.num_heads)
    made["o_proj.weight"] = output.reshape(len(output), -1)
    scale = (case.source_options.scale or keys.shape[1] ** -0.5) / options.softmax_scale
    rows = _queries(case, queries[:, still], turned) * np.float32(scale)
    return made | _query_parameters(case, rows) | _rest(case, arrays, made["o_proj.weight"])


def _pairs(case: Case) -> tuple[list[int], list[int]]:
    """Both dimensions, in a head of the source, of the pairs that stay rotated."""
    pairs = rotated_pairs(case)
    assert not isinstance(pairs, str), pairs
    before, after = pairs
    if not after:
        return [], []
    traditional = case.source_options.rope.traditional
    first = [2 * pair if traditional else pair for pair in range(0, before, before // after)]
    return first, [each + 1 if traditional else each + before for each in first]


def _rotated(case: Case, keys: Array, queries: Array, first: list[int], second: list[int]) -> tuple[Array, Array]:
    """One rotated key for all heads out of (K, W, D + 1), and the rotated parts of queries (H, W, D) for it.

    Dimensions come in the order that the new layer pairs them in.
    """
    if not first:
        return np.zeros((0, keys.shape[-1]), np.float32), queries[:, :0]
    grouped = queries.reshape(len(keys), -1, *queries.shape[1:]).astype(np.complex128)
    shared, turned = shared_pairs(
        keys[:, first] + 1j * keys[:, second], grouped[:, :, first] + 1j * grouped[:, :, second]
    )
    axis = 1 if case.options.rope.traditional else 0
    rows = np.stack([shared.real, shared.imag], axis=axis).reshape(-1, keys.shape[-1])
    parts = np.stack([turned.real, turned.imag], axis=2 + axis)
    return rows.astype(np.float32), parts.reshape(len(queries), -1, queries.shape[-1]).astype(np.float32)


def _normed(case: Case, arrays: Mapping[str, Array], read: Projections) -> tuple[Array, Array, Array]:
    """Queries, keys and their bias; where norms divide by a size before their scale, divided by an average one."""
    if case.source_options.qk_norm is None:
        return read.q, read.k, read.k_bias
    plain = read_attention(case, arrays, scaled=False)
    q_sizes, k_sizes = _sizes(case, plain.q, plain.q_bias), _sizes(case, plain.k, plain.k_bias)
    return read.q / q_sizes[:, None, None], read.k / k_sizes[:, None, None], read.k_bias / k_sizes[:, None]


def _sizes(case: Case, rows: Array, bias: Array) -> Array:
    """The size that a norm divides each head (n, W, D) by, (n,), for inputs of the size `reads`, or else of one."""
    norm, reads = case.source_options.qk_norm, case.settings["reads"] or 1.0
    squares = np.square(reads * rows.astype(np.float64)).sum(axis=2) + np.square(bias.astype(np.float64))
    means = np.full(len(rows), squares.mean()) if norm.over == "all" else squares.mean(axis=1)
    return np.sqrt(means + norm.eps).astype(np.float32)


def _queries(case: Case, still: Array, turned: Array) -> Array:
    """Both parts of the queries, (H, ·, D), as rows of the new layer, (H', nope + rope, D)."""
    options = case.options
    parts = (still, options.qk_nope_head_dim), (turned, options.qk_rope_head_dim)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0))) for part, width in parts]
    return spread(np.concatenate(padded, axis=1), options.num_heads)


def _query_parameters(case: Case, queries: Array) -> dict[str, Array]:
    """The projection of the queries, in one or through a latent of their own."""
    options, flat = case.options, queries.reshape(-1, queries.shape[-1])
    rank = options.q_lora_rank
    if rank is None:
        return {"q_proj.weight": flat}
    left, right = _low_rank(flat, rank)
    weight, rest = _undone(right, case)
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
    weight, rest = _undone(right[:, :hidden], case)
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


def _undone(right: Array, case: Case) -> tuple[float, float]:
    """The weight of a norm that undoes it on average, a power of two, and the factor that is left."""
    square = float(np.square(right.astype(np.float64)).sum()) / len(right)
    size = sqrt(square * case.settings["reads"] ** 2 + case.options.norm_eps)
    weight = 2.0 ** round(log2(size))
    return weight, size / weight


def _rest(case: Case, arrays: Mapping[str, Array], output: Array) -> dict[str, Array]:
    """Gate and sinks, at neutral values where the source has none."""
    options: Any = case.options
    made = {}
    if options.sinks:
        sinks = arrays.get("sinks")
        no_sinks = np.full(options.num_heads, NO_SINK, np.float32)
        made["sinks"] = no_sinks if sinks is None else spread(sinks, options.num_heads)
    if options.gate is not None:
        gate = arrays.get("g_proj.weight") if same_gate(case) else None
        if gate is None:
            made["g_proj.weight"] = np.zeros((options.gate_dim, case.dims.hidden_size), np.float32)
            made["o_proj.weight"] = output * np.float32(2)
        else:
            made["g_proj.weight"] = gate
    return made
