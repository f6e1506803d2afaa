"""The delta rules as kernels: one SIMD group for each row of a state, from the first token to the last.

A row s of a state (Dv, Dk) never meets the other rows: with the value v and the output y of its row,

    gated delta rule, KDA             s' = g * s,  s = s' + beta (v - s' . k) k         y = s . q
    RWKV-7                            u = s . a,   s = w * s + u b + v k                y = s . r

Each of 32 lanes keeps every 32nd number of the row in registers, so that neighbouring lanes read neighbouring numbers
of k, and a product with a row is a sum over lanes; all lanes then know what is written. Kernels for one token after the
other are laid out like this in flash-linear-attention and mlx-lm too. Four rows are launched together, for they read
the same keys.
"""

from __future__ import annotations

from typing import Final

import mlx.core as mx

from axon_core.kernels._derivatives import Recurrence, in_place_of
from axon_core.kernels._device import LANES, Kernel, language
from axon_core.kernels._native import native

__all__ = ["gated_delta_rule", "wkv7"]

_GROUP: Final = 4 * LANES

# Of (B, L, H, W), the place of this thread: lane of a row of the state of a head of a sequence.
_PLACE: Final = """
    const size_t sequences = v_shape[0], tokens = v_shape[1], heads = v_shape[2], rows = v_shape[3];
    const size_t lane = at % 32, row = at / 32 % rows, state_at = at / 32;
    const size_t head = state_at / rows % heads, sequence = state_at / rows / heads;
    if (sequence >= sequences) { return; }
    v += (sequence * tokens * heads + head) * rows + row;
    y += (sequence * tokens * heads + head) * rows + row;
    state += state_at * Dk + lane; last += state_at * Dk + lane;

    float s[Dk / 32];
    #pragma unroll
    for (int i = 0; i < Dk / 32; ++i) { s[i] = state[32 * i]; }
"""
_LAST: Final = """
    #pragma unroll
    for (int i = 0; i < Dk / 32; ++i) { last[32 * i] = s[i]; }
"""

_GATED_DELTA: Final = Kernel(
    name="gated_delta_rule",
    inputs=("state", "q", "k", "v", "g", "beta"),
    outputs=("y", "last"),
    group=_GROUP,
    body=_PLACE
    + """
    const size_t key_heads = k_shape[2], key_head = head / (heads / key_heads);
    q += (sequence * tokens * key_heads + key_head) * Dk + lane;
    k += (sequence * tokens * key_heads + key_head) * Dk + lane;
    g += (sequence * tokens * heads + head) * Dg + lane * (Dg > 1); beta += sequence * tokens * heads + head;

    for (size_t t = 0; t < tokens; ++t) {
        float recalled = 0.0f, found = 0.0f;
        #pragma unroll
        for (int i = 0; i < Dk / 32; ++i) { s[i] *= g[Dg > 1 ? 32 * i : 0]; recalled += s[i] * k[32 * i]; }
        const float written = *beta * (*v - lane_sum(recalled));
        #pragma unroll
        for (int i = 0; i < Dk / 32; ++i) { s[i] += written * k[32 * i]; found += s[i] * q[32 * i]; }
        found = lane_sum(found);
        if (lane == 0) { *y = found; }
        q += key_heads * Dk; k += key_heads * Dk;
        v += heads * rows; y += heads * rows;
        g += heads * Dg; beta += heads;
    }
"""
    + _LAST,
)

_WKV7: Final = Kernel(
    name="wkv7",
    inputs=("state", "r", "w", "k", "v", "a", "b"),
    outputs=("y", "last"),
    group=_GROUP,
    body=_PLACE
    + """
    const size_t first = (sequence * tokens * heads + head) * Dk + lane;
    r += first; w += first; k += first; a += first; b += first;

    for (size_t t = 0; t < tokens; ++t) {
        float recalled = 0.0f, found = 0.0f;
        #pragma unroll
        for (int i = 0; i < Dk / 32; ++i) { recalled += s[i] * a[32 * i]; }
        recalled = lane_sum(recalled);
        #pragma unroll
        for (int i = 0; i < Dk / 32; ++i) {
            s[i] = w[32 * i] * s[i] + recalled * b[32 * i] + *v * k[32 * i];
            found += s[i] * r[32 * i];
        }
        found = lane_sum(found);
        if (lane == 0) { *y = found; }
        r += heads * Dk; w += heads * Dk; k += heads * Dk; a += heads * Dk; b += heads * Dk;
        v += heads * rows; y += heads * rows;
    }
"""
    + _LAST,
)


def gated_delta_rule(
    pure: Recurrence, state: mx.array, q: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """Run the gated delta rule over any number of tokens, all in float32; Dk must divide by 32 for a kernel on a GPU.

    Args:
        pure: The same, of the arguments that follow.
        state: State before the first token, (B, Hv, Dv, Dk).
        q: Queries, (B, L, Hk, Dk).
        k: Keys, (B, L, Hk, Dk).
        v: Values, (B, L, Hv, Dv); Hv is a multiple of Hk.
        log_g: Logarithms of the decays, not positive, (B, L, Hv), or (B, L, Hv, Dk) for each channel.
        beta: Rates, (B, L, Hv).

    Returns:
        The output, (B, L, Hv, Dv), and the state after the last token.
    """
    module = native()
    if module:
        run = in_place_of(pure, module.gated_delta_rule, module.gated_delta_rule_vjp)
    else:
        run = in_place_of(pure, _gated_delta if _fits(state, v) else None)
    return run(state, q, k, v, log_g, beta)


def wkv7(
    pure: Recurrence,
    state: mx.array,
    r: mx.array,
    log_w: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
) -> tuple[mx.array, mx.array]:
    """Run RWKV-7's recurrence over any number of tokens, all in float32; Dk must divide by 32 for a kernel on a GPU.

    Args:
        pure: The same, of the arguments that follow.
        state: State before the first token, (B, H, Dv, Dk).
        r: Receptances, (B, L, H, Dk).
        log_w: Logarithms of the decays, not positive, (B, L, H, Dk).
        k: Keys, (B, L, H, Dk).
        v: Values, (B, L, H, Dv).
        a: What is recalled, (B, L, H, Dk).
        b: Where it is put, (B, L, H, Dk).

    Returns:
        The output, (B, L, H, Dv), and the state after the last token.
    """
    module = native()
    if module:
        run = in_place_of(pure, module.wkv7, module.wkv7_vjp)
    else:
        run = in_place_of(pure, _wkv7 if _fits(state, v) else None)
    return run(state, r, log_w, k, v, a, b)


def _fits(state: mx.array, v: mx.array) -> bool:
    return language() is not None and v.size > 0 and state.size > 0 and state.shape[-1] % LANES == 0


def _gated_delta(
    state: mx.array, q: mx.array, k: mx.array, v: mx.array, log_g: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    by_channel = log_g.shape[-1] if log_g.ndim == 4 else 1
    return _launch(_GATED_DELTA, state, v, q, k, v, mx.exp(log_g), beta, Dg=by_channel)


def _wkv7(
    state: mx.array, r: mx.array, log_w: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array
) -> tuple[mx.array, mx.array]:
    return _launch(_WKV7, state, v, r, mx.exp(log_w), k, v, a, b)


def _launch(
    kernel: Kernel, state: mx.array, v: mx.array, *inputs: mx.array, **constants: int
) -> tuple[mx.array, mx.array]:
    rows, width = state.size // state.shape[-1], state.shape[-1]
    y, last = kernel(state, *inputs, shapes=[v.shape, state.shape], threads=LANES * rows, Dk=width, **constants)
    return y, last
