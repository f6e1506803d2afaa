"""The gated delta rule with a decay for every channel of the key (Kimi Team 2025, "Kimi Linear").

Written as in `axon_core.gated_delta`, with a diagonal matrix in the place of the number g_t:

    S_t = S_{t-1} diag(g_t) (I - beta_t k_t k_t^T) + beta_t v_t k_t^T

In a chunk, what a token recalls of an earlier one is a sum over channels, each with a decay of its own,

    T_ij = beta_i sum_d k_id k_jd exp(D_ijd),    D_ijd = sum of log g_d over the tokens j+1..i,    j < i

which is a product of matrices only if exp(D_ij) is split into a factor of i and one of j. Split at the start of the
chunk, the factor of j is one over a decay, and the logarithms of KDA's decays have no lower bound. So they are split
at a token between the two: cut the chunk in halves, the halves in halves, and so on. Any two tokens are parted by one
cut alone, in two halves of h tokens, and with m the last token of the first half

    exp(D_ij) = exp(D_im) exp(D_mj)

Both factors are exponentials of sums of numbers that are at most zero: none can overflow, what vanishes in one of them
vanishes in the product, and no sum is made by subtraction. For C tokens there are log2(C) products of halves, of which
those of one size run side by side.

Measured on two shared x86-64 cores (mlx 0.32 on the CPU), ms by tokens of a chunk:

    heads, width    tokens     16      32      64    mlx-lm (a step per token)
    4, 64              512     54      58      72     116
    16, 128            512    417     410     520    1241
    4, 64             2048    139     138     177     334
    16, 128           2048   1523    2090    1797    4260
"""

from __future__ import annotations

import mlx.core as mx

from axon_core.chunked import through_chunks, unit_lower_inverse
from axon_core.elementary import exp
from axon_core.recompute import recomputed

__all__ = ["channel_segment"]


@recomputed
def channel_segment(
    q: mx.array, state: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """Some chunks, (..., chunks, C, W), from the transposed state (..., 1, Dk, Dv); C is a power of two.

    Args:
        q: Queries, W = Dk.
        state: State before the first chunk.
        k: Keys, W = Dk.
        v: Values, W = Dv.
        log_g: Logarithms of the decays, W = Dk.
        beta: Which part of the correction is written, W = 1.

    Returns:
        The outputs, W = Dv, and the state after the last chunk.
    """
    recalls, reads, since, until = _decayed(q, k, log_g)
    solve = unit_lower_inverse(beta * recalls) * beta.swapaxes(-1, -2)
    keys = mx.contiguous((exp(until) * k).swapaxes(-1, -2))
    through = exp(since[..., -1:, :]).swapaxes(-1, -2)
    since = exp(since)
    reads = reads + mx.eye(k.shape[-2]) * (q * k).sum(-1, keepdims=True)
    return through_chunks(state, solve @ v, solve @ (since * k), keys, through, since * q, reads)


def _decayed(q: mx.array, k: mx.array, log_g: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """What keys and queries see of earlier keys, through the decays in between.

    Returns:
        Products of keys with earlier keys and of queries with earlier keys, (..., C, C), zero for j >= i; sums of the
        logarithms up to each token and of those after it, (..., C, Dk).
    """
    tokens, width = log_g.shape[-2:]
    rows = mx.stack([k, q], axis=-3)
    # Halves of one token: (..., halves, tokens of a half, W), and the products within each half.
    since, until = mx.unflatten(log_g, -2, (tokens, 1)), mx.zeros((*log_g.shape[:-1], 1, width))
    within = mx.zeros((*log_g.shape[:-2], 2, tokens, 1, 1))
    half = 1
    while half < tokens:
        (since, later), (until, end) = _pairs(since), _pairs(until)
        first = _pairs(mx.unflatten(k, -2, (-1, half)))[0] * exp(until)
        second = _pairs(mx.unflatten(rows, -2, (-1, half)))[1] * exp(later)[..., None, :, :, :]
        below = second @ mx.contiguous(first.swapaxes(-1, -2))[..., None, :, :, :]
        within = _merged(*_pairs(within), below)
        total, rest = since[..., -1:, :], later[..., -1:, :]
        since, until = mx.concatenate([since, total + later], -2), mx.concatenate([until + rest, end], -2)
        half *= 2
    recalls, reads = mx.split(within.squeeze(-3), 2, axis=-3)
    return recalls.squeeze(-3), reads.squeeze(-3), since.squeeze(-3), until.squeeze(-3)


def _pairs(halves: mx.array) -> tuple[mx.array, mx.array]:
    """The first and the second of each pair of halves, out of (..., halves, h, W)."""
    first, second = mx.split(mx.unflatten(halves, -3, (-1, 2)), 2, axis=-3)
    return first.squeeze(-3), second.squeeze(-3)


def _merged(first: mx.array, second: mx.array, below: mx.array) -> mx.array:
    """Lower triangular matrices of twice the size, (..., 2 h, 2 h), out of their three parts."""
    upper = mx.concatenate([first, mx.zeros_like(below)], axis=-1)
    return mx.concatenate([upper, mx.concatenate([below, second], axis=-1)], axis=-2)
