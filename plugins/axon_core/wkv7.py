"""RWKV-7's recurrence: a generalised delta rule with a decay for every channel, a vector as rate, and two keys.

For every head, with a state S of shape (Dv, Dk),

    S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T
    y_t = S_t r_t

(Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution", where a is minus the unit vector of a removal
key and b that vector times the in-context rates). What a token recalls, u_t = S_{t-1} a_t, couples the tokens of a
chunk. With P_t the product of w over its tokens 1..t and S the state before it,

    u_t = S (P_{t-1} a_t) + sum_{j<t} [u_j b_j + v_j k_j] . (P_{t-1} / P_j) a_t
    y_t = S (P_t r_t)     + sum_{j<=t} [u_j b_j + v_j k_j] . (P_t / P_j) r_t

where u_j b_j . z means u_j times the number b_j^T z. The first line is a unit lower triangular system

    (I - A_b) U = A S^T + A_k V      A: rows P_{t-1} a_t,  A_b, A_k: the numbers of b and k,  R, R_b, R_k likewise of r

whose solution is linear in S: U = Z_s S^T + Z_v. Put into the other lines, a chunk becomes two pairs of matrices,

    Y   = (R + R_b Z_s) S^T + (R_b Z_v + R_k V)
    S'^T = (diag(P_C) + B^T Z_s) S^T + (B^T Z_v + K^T V)    B, K: rows (P_C / P_j) b_j, (P_C / P_j) k_j

They are computed for many chunks at once; in sequence runs one product per chunk, S' out of S.

The ratios of decays are products of two factors, P_t / sqrt(P_C) and sqrt(P_C) / P_j: of float32's 88 powers of e on
either side, C tokens use C / 2 times -log w. RWKV-7 keeps log w above -exp(-1/2), which makes 10 of them for 32 tokens.

Measured on two shared x86-64 cores (mlx 0.32 on the CPU), ms for 512 tokens of float32, by tokens of a chunk:

    heads, width     16     32     64   mlx-lm (a step per token)
    4, 64            53     52     73    193
    12, 64          154    155    204    371

A kernel takes over on a GPU where Dk divides by 32, and on the CPU where `axon-native` is installed (`kernels`).
"""

from __future__ import annotations

from functools import partial
from typing import Final

import mlx.core as mx

from axon_core import kernels
from axon_core.chunked import cut, unit_lower_inverse
from axon_core.recompute import recomputed
from axon_core.specs._segments import delta_chunk, delta_chunks

__all__ = ["MIN_LOG_W", "wkv7"]

#: Least logarithm of a decay that the default chunks are made for: 32 powers of e on either side.
MIN_LOG_W: Final = -2.0


def wkv7(
    r: mx.array,
    log_w: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
    state: mx.array | None = None,
    mask: mx.array | None = None,
    chunk: int = 32,
) -> tuple[mx.array, mx.array]:
    """Run the recurrence over a sequence.

    Everything is computed in float32, whatever the types of the arguments.

    Args:
        r: Receptances, which read the state, (B, L, H, Dk).
        log_w: Logarithms of the decays, (B, L, H, Dk), from `MIN_LOG_W` to 0.
        k: Keys, (B, L, H, Dk).
        v: Values, (B, L, H, Dv).
        a: What is recalled, (B, L, H, Dk).
        b: Where it is put, (B, L, H, Dk).
        state: State before the first token, (B, H, Dv, Dk); zeros by default.
        mask: False on padding, (B, L). A padded token leaves the state untouched, its output means nothing.
        chunk: Tokens that are solved together, a power of two.

    Returns:
        The output (B, L, H, Dv) in the type of `v`, and the state after the last token, (B, H, Dv, Dk) in float32.

    Raises:
        ValueError: If `chunk` is not a power of two.
    """
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk must be a power of two, not {chunk}")
    batch, length, heads, width = v.shape
    if state is None:
        state = mx.zeros((batch, heads, width, k.shape[-1]))
    state = state.astype(mx.float32)
    if length == 0:
        return v, state
    inputs = [_prepare(x, mask) for x in (r, log_w, k, v, a, b)]
    y, state = kernels.wkv7(partial(_tokens, chunk), state, *inputs)
    return y.astype(v.dtype), state


def _prepare(x: mx.array, mask: mx.array | None) -> mx.array:
    """(B, L, H, W) in float32; padding neither decays nor recalls nor writes."""
    x = x.astype(mx.float32)
    # All of them: values at padding may be anything, and 0 * nan is nan.
    return x if mask is None else mx.where(mask[..., None, None], x, 0.0)


def _tokens(
    chunk: int,
    state: mx.array,
    r: mx.array,
    log_w: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
) -> tuple[mx.array, mx.array]:
    """All tokens: (B, L, H, W) and (B, H, Dv, Dk) in and out."""
    inputs = [x.swapaxes(1, 2) for x in (r, log_w, k, v, a, b)]
    y, state = _step(state, *inputs) if v.shape[1] == 1 else _segments(chunk, state, *inputs)
    return y.swapaxes(1, 2), state


def _step(
    state: mx.array, r: mx.array, log_w: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array
) -> tuple[mx.array, mx.array]:
    """One token."""
    recalled = a @ state.swapaxes(-1, -2)
    state = mx.exp(log_w) * state + recalled.swapaxes(-1, -2) * b + v.swapaxes(-1, -2) * k
    return r @ state.swapaxes(-1, -2), state


def _segments(
    chunk: int,
    state: mx.array,
    r: mx.array,
    log_w: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
) -> tuple[mx.array, mx.array]:
    """Any number of tokens, as many chunks at a time as keep the temporaries small."""
    batch, heads, length, key_width = k.shape
    both = key_width + v.shape[-1]
    chunk = delta_chunk(length, chunk)
    # The tokens that a last chunk lacks are zeros, which neither decay nor recall nor write.
    inputs = [cut(x, chunk) for x in (r, log_w, k, v, a, b)]
    numbers = batch * heads * max(4 * chunk * chunk, chunk * both, key_width * both)
    fitting = delta_chunks(numbers)
    # Split, not sliced, here and below: the gradient of a slice is an array as large as the whole, once per slice.
    cuts = list(range(fitting, inputs[0].shape[-3], fitting))
    state = mx.contiguous(state.swapaxes(-1, -2))[..., None, :, :]
    outputs = []
    for r, *others in zip(*(mx.split(x, cuts, axis=-3) for x in inputs), strict=True):
        y, state = _segment(r, state, *others)
        outputs.append(y)
    y = mx.concatenate(outputs, axis=-3).flatten(-3, -2)
    return y[..., :length, :], state.squeeze(-3).swapaxes(-1, -2)


@recomputed
def _segment(
    r: mx.array, state: mx.array, log_w: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array
) -> tuple[mx.array, mx.array]:
    """Some chunks, (..., chunks, C, W), from the transposed state (..., 1, Dk, Dv)."""
    key_width = k.shape[-1]
    before, until = mx.cumsum(log_w, axis=-2, inclusive=False), mx.cumsum(log_w, axis=-2)
    half = until[..., -1:, :] / 2
    rows = mx.concatenate([a * mx.exp(before - half), r * mx.exp(until - half)], axis=-2)
    # The transpose, copied: the CPU multiplies rows by columns three times as fast as rows by rows.
    since = mx.exp(half - until)
    columns = mx.contiguous(mx.concatenate([b * since, k * since], axis=-2).swapaxes(-1, -2))
    a_b, a_k, r_b, r_k = _quarters(rows @ columns)

    # Both factors of a decay up to a token or since it hold half of the chunk's.
    half = mx.exp(half)
    a, r = mx.split(rows * half, 2, axis=-2)
    b, k = mx.split(columns * half.swapaxes(-1, -2), 2, axis=-1)
    decay = mx.eye(key_width) * (half * half)
    solved = unit_lower_inverse(-a_b) @ mx.concatenate([a, a_k @ v], axis=-1)
    read = mx.concatenate([r, r_k @ v], axis=-1) + r_b @ solved
    moved = mx.concatenate([decay, k @ v], axis=-1) + b @ solved

    (through, made), (reading, y) = (mx.split(x, [key_width], axis=-1) for x in (moved, read))
    states = [state]
    for part, new in zip(*(mx.split(x, v.shape[-3], axis=-3) for x in (through, made)), strict=True):
        states.append(part @ states[-1] + new)
    return y + reading @ mx.concatenate(states[:-1], axis=-3), states[-1]


def _quarters(scores: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """Of (..., 2C, 2C): what a and r, in rows, see of b and k, in columns; a sees earlier tokens, r its own too."""
    (a_b, a_k), (r_b, r_k) = (mx.split(half, 2, axis=-1) for half in mx.split(scores, 2, axis=-2))
    return mx.tril(a_b, -1), mx.tril(a_k, -1), mx.tril(r_b), mx.tril(r_k)
