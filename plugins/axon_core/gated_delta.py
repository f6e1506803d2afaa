"""The gated delta rule: a decaying matrix of associations, in which a token corrects what its own key recalls.

For every head, with a state S of shape (Dv, Dk),

    S_t = g_t S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T
    o_t = S_t q_t

(Yang et al. 2024, "Gated Delta Networks"), where g_t is a number for each head, or one for every channel of the key
(`axon_core.channel_delta` has that form of what follows). In a chunk that starts from S

    S_t = exp(G_t) S + sum_{j<=t} exp(D_tj) u_j k_j^T

where G_t and D_tj are the sums of log g over the tokens 1..t and j+1..t. What the tokens write, u, solves a unit lower
triangular system (the WY form of Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule"):

    (I + T) U = diag(beta) (V - diag(exp(G)) K S^T),    T_ij = beta_i exp(D_ij) k_i . k_j  for j < i

It is solved for many chunks at once up to the products with S; those run in sequence, four per chunk.

Nothing is divided by a decay and no cumulative sums are subtracted: every D_tj is a sum of its own, so that a gate of
exp(-10000) next to gates of almost one neither overflows nor cancels.

Measured on two shared x86-64 cores (mlx 0.32 on the CPU), ms for 512 tokens, by tokens of a chunk:

    Hv, Hk, width     16     32     64    128   mlx-lm (a step per token)
    4, 4, 64          23     28     41    157     57
    32, 16, 128      461    507    852   2894   1260

With a fast BLAS in place of the wheel's, chunks of 32 are the fastest of these, at 5 and 72 ms. A kernel takes over on
a GPU where Dk divides by 32, and on the CPU where `axon-native` is installed (`kernels`).
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx

from axon_core import kernels
from axon_core.channel_delta import channel_segment
from axon_core.chunked import cut, through_chunks, unit_lower_inverse
from axon_core.elementary import exp
from axon_core.recompute import recomputed
from axon_core.specs._segments import delta_chunk, delta_chunks

__all__ = ["gated_delta_rule"]


def gated_delta_rule(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_g: mx.array,
    beta: mx.array,
    state: mx.array | None = None,
    mask: mx.array | None = None,
    chunk: int | None = None,
) -> tuple[mx.array, mx.array]:
    """Run the gated delta rule over a sequence.

    Everything is computed in float32, whatever the types of the arguments.

    Args:
        q: Queries, (B, L, Hk, Dk); they are not scaled here.
        k: Keys, (B, L, Hk, Dk), of length at most one.
        v: Values, (B, L, Hv, Dv). Hv is a multiple of Hk; Hv / Hk neighbouring heads share a key.
        log_g: Logarithms of the decays, not positive, (B, L, Hv), or (B, L, Hv, Dk) for each channel of a key.
        beta: Which part of the correction is written, from 0 to 1, or to 2 for transitions with negative eigenvalues,
            (B, L, Hv).
        state: State before the first token, (B, Hv, Dv, Dk); zeros by default.
        mask: False on padding, (B, L). A padded token leaves the state untouched, its output means nothing.
        chunk: Tokens that are solved together, a power of two; by default 32 on the CPU and 64 on a GPU.

    Returns:
        The output (B, L, Hv, Dv) in the type of `v`, and the state after the last token, (B, Hv, Dv, Dk) in float32.

    Raises:
        ValueError: If `chunk` is not a power of two.
    """
    if chunk is None:
        chunk = 32 if mx.default_device() == mx.cpu else 64
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk must be a power of two, not {chunk}")
    batch, length, heads, width = v.shape
    if state is None:
        state = mx.zeros((batch, heads, width, k.shape[-1]))
    state = state.astype(mx.float32)
    if length == 0:
        return v, state
    inputs = [_prepare(a, mask) for a in (q, k, v, log_g, beta)]
    y, state = kernels.gated_delta_rule(partial(_tokens, chunk), state, *inputs)
    return y.astype(v.dtype), state


def _prepare(a: mx.array, mask: mx.array | None) -> mx.array:
    """(B, L, ...) in float32; padding neither decays nor writes."""
    a = a.astype(mx.float32)
    if mask is None:
        return a
    # All of them: values at padding may be anything, and 0 * nan is nan.
    return mx.where(mask.reshape(*mask.shape, *[1] * (a.ndim - 2)), a, 0.0)


def _tokens(
    chunk: int, state: mx.array, q: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """All tokens: (B, L, H, W), gates (B, L, Hv) or (B, L, Hv, Dk), and (B, Hv, Dv, Dk) in and out."""
    batch, length, heads, width = v.shape
    key_heads, key_width = k.shape[2:]
    gates = log_g if log_g.ndim == 4 else log_g[..., None]
    inputs = (_by_head(a, key_heads) for a in (q, k, v, gates, beta[..., None]))
    # Value heads by the key that they share, so that keys need not be repeated.
    by_key = state.reshape(batch, key_heads, -1, width, key_width)
    y, by_key = _step(by_key, *inputs) if length == 1 else _segments(chunk, by_key, *inputs)
    return y.reshape(batch, heads, length, width).swapaxes(1, 2), by_key.reshape(state.shape)


def _by_head(a: mx.array, key_heads: int) -> mx.array:
    """(B, L, H, W) to (B, Hk, H / Hk, L, W)."""
    batch, length, _, width = a.shape
    return a.reshape(batch, length, key_heads, -1, width).transpose(0, 2, 3, 1, 4)


def _step(
    state: mx.array, q: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """One token."""
    state = exp(log_g) * state
    correction = beta * (v - k @ state.swapaxes(-1, -2))
    state = state + correction.swapaxes(-1, -2) * k
    return q @ state.swapaxes(-1, -2), state


def _segments(
    chunk: int, state: mx.array, q: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """Any number of tokens, as many chunks at a time as keep the temporaries small."""
    length = v.shape[-2]
    segment = _segment if log_g.shape[-1] == 1 else channel_segment
    chunk = delta_chunk(length, chunk)
    # The tokens that a last chunk lacks are zeros, which neither decay nor write.
    inputs = [cut(a, chunk) for a in (q, k, v, log_g, beta)]
    numbers = beta.size // length * chunk * max(chunk, *state.shape[-2:])
    fitting = delta_chunks(numbers)
    # Split, not sliced, here and below: the gradient of a slice is an array as large as the whole, once per slice.
    cuts = list(range(fitting, inputs[0].shape[-3], fitting))
    # The transpose, copied: the CPU multiplies rows by columns three times as fast as rows by rows.
    state = mx.contiguous(state.swapaxes(-1, -2))[..., None, :, :]
    outputs = []
    for q, *others in zip(*(mx.split(a, cuts, axis=-3) for a in inputs), strict=True):
        y, state = segment(q, state, *others)
        outputs.append(y)
    y = mx.concatenate(outputs, axis=-3).flatten(-3, -2)
    return y[..., :length, :], state.squeeze(-3).swapaxes(-1, -2)


@recomputed
def _segment(
    q: mx.array, state: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """Some chunks, (..., chunks, C, W): all that does not depend on the state in one go, then the states in order."""
    columns = mx.contiguous(k.swapaxes(-1, -2))
    decay, since = _decays(log_g)
    lower = mx.tril(beta * decay * (k @ columns), -1)
    solve = unit_lower_inverse(lower) * beta.swapaxes(-1, -2)
    written, recalled = solve @ v, (solve * since.swapaxes(-1, -2)) @ k
    keys, through = columns * decay[..., -1:, :], since[..., -1:, :]
    return through_chunks(state, written, recalled, keys, through, since * q, decay * (q @ columns))


def _decays(log_g: mx.array) -> tuple[mx.array, mx.array]:
    """Of (..., C, 1): decays from token j to i, (..., C, C), zero for j > i; and from the start, (..., C, 1)."""
    chunk = log_g.shape[-2]
    between = mx.cumsum(mx.where(mx.tri(chunk, k=-1, dtype=mx.bool_), log_g, 0.0), axis=-2)
    return mx.tril(exp(between)), exp(mx.cumsum(log_g, axis=-2))
