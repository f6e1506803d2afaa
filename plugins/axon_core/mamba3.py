r"""Mamba-3 (Lahoti et al. 2026, "Mamba-3: Improved Sequence Modeling using State Space Principles"), one input a head.

For every head, with a state h of P x N, steps :math:`\Delta`, rates :math:`a < 0` and shares :math:`\lambda` made of
the input, the trapezoid between two tokens takes the place of one rectangle per token:

.. math::
    h_t = \alpha_t h_{t-1} + (1 - \lambda_t) \Delta_t \alpha_t\, v_{t-1} k_{t-1}^T + \lambda_t \Delta_t\, v_t k_t^T,
    \qquad \alpha_t = e^{\Delta_t a_t}, \qquad y_t = h_t q_t + D v_t

The states are complex, as rotations: pairs of k and q are turned by
:math:`\theta_t = \theta_{t-1} + \Delta_t \omega_t`.

It is computed by two scans of Mamba-2 (`axon_core.ssd`), of the tokens themselves and of those before them, whose
outputs and states add up. One scan of both together would be shorter, for what token j leaves for all later ones is
:math:`(\lambda_j \Delta_j + (1 - \lambda_{j+1}) \Delta_{j+1}) v_j k_j^T`; but then the second part would have to be
taken off what a token reads of itself, where it may be a thousand times as large as what is left.
"""

from __future__ import annotations

from math import log, pi
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.conv import last_inputs
from axon_core.elementary import exp, sigmoid, silu, softplus
from axon_core.linear import Linear
from axon_core.norms import GatedRMSNorm, RMSNorm
from axon_core.specs.mamba3 import Mamba3Options
from axon_core.ssd import decayed_scan
from axon_core.states import read_states, write_states

__all__ = ["Mamba3"]

#: Added to the mean square in the norms of k, q and the output.
_EPS: Final = 1e-5


class Mamba3(nn.Module):
    """Mamba-3's mixer.

        z, v, k, q, dt, a, share, angle = in_proj(x)
        step  = softplus(dt + dt_bias)
        decay = exp(-max(heavy_tail(a), a_floor) * step)
        k, q  = rotated(B_norm(k) + B_bias), rotated(C_norm(q) + C_bias)     by sums of step * pi * tanh(angle)
        y     = scan(v, k, q, step, decay, sigmoid(share)) + D * v
        y     = out_proj(y * silu(z))                          or out_proj(norm(y) * silu(z)), each head by itself

    with `heavy_tail(a)` 1 + a above zero and 1 / (1 - a) below. Names, shapes and the order of the projection are those
    of `mamba_ssm.modules.mamba3`. Everything between the projections is computed in float32.

    Args:
        options: `Mamba3Options`.
        hidden_size: Width D of input and output.
    """

    def __init__(self, options: Mamba3Options, hidden_size: int) -> None:
        super().__init__()
        heads, states = options.heads(hidden_size), options.d_state
        inner = heads * options.head_dim
        self.options, self.num_heads = options, heads
        self.in_proj = Linear(hidden_size, sum(options.sections(hidden_size)), bias=False)
        self.out_proj = Linear(inner, hidden_size, bias=False)
        dt = mx.exp(mx.random.uniform(log(1e-3), log(1e-1), (heads,)))
        self.dt_bias = dt + mx.log(-mx.expm1(-dt))
        self.B_bias, self.C_bias = mx.ones((heads, 1, states)), mx.ones((heads, 1, states))
        self.B_norm, self.C_norm = RMSNorm(states, _EPS), RMSNorm(states, _EPS)
        self.D = mx.ones((heads,))
        if options.norm:
            self.norm = GatedRMSNorm(inner, _EPS, heads, before_gate=True)

    @classmethod
    def from_options(cls, options: Mamba3Options, dims: Dims) -> Mamba3:
        """Build from `Mamba3Options`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            x: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(4)`, which is updated, or a list of the four arrays, which is not.

        Returns:
            The output (B, L, D), and the cache, all in float32: the angles (B, H, pairs), the state (B, H, P, N), and
            the last token's k (B, H, N) and v (B, H, P). Without a cache, a new list.
        """
        batch, length, _ = x.shape
        (angles, state, *last), mask = read_states(cache, mask, length, count=4)
        projected = self.in_proj(x).astype(mx.float32)
        cuts = [sum(self.options.sections(x.shape[-1])[: n + 1]) for n in range(7)]
        z, v, k, q, dt, a, share, angle = mx.split(projected, cuts, axis=-1)
        step = softplus(dt + self.dt_bias)
        rate = mx.maximum(_heavy_tail(a), self.options.a_floor)
        v, share = mx.unflatten(v, -1, (self.num_heads, -1)), sigmoid(share)
        if mask is not None:
            step, v = mx.where(mask[..., None], step, 0.0), mx.where(mask[..., None, None], v, 0.0)
            rate, share, angle = (mx.where(mask[..., None], part, 0.0) for part in (rate, share, angle))
        if angles is None:
            angles = mx.zeros((batch, self.num_heads, angle.shape[-1]))
        # Each within one turn, so that sums of them stay exact however large the steps are.
        turns = _within_a_turn(step[..., None] * (pi * mx.tanh(angle))[:, :, None])
        turned = mx.cumsum(turns, axis=1) + angles[:, None]
        k, q = self._rotated("B", k, turned), self._rotated("C", q, turned)
        if mask is not None:
            k = mx.where(mask[..., None, None], k, 0.0)
        y, state = self._scanned(v, k, q, -rate * step, step, share, state, last)
        kept = [_last(before, now, mask) for before, now in zip(last, (k, v), strict=True)]
        angles = _within_a_turn(turned[:, -1])
        y = (y + self.D[:, None] * v).flatten(2)
        y = self.norm(y, z) if "norm" in self else y * silu(z)
        return self.out_proj(y.astype(x.dtype)), write_states(cache, [angles, state, *kept], length)

    def _rotated(self, name: str, x: mx.array, angles: mx.array) -> mx.array:
        """Normalised, shifted and turned: (B, L, G N) to (B, L, H, N)."""
        x = mx.unflatten(x, -1, (-1, self.options.d_state))
        x = self[f"{name}_norm"](x)
        x = mx.repeat(x, self.num_heads // x.shape[2], axis=2) + self[f"{name}_bias"][:, 0]
        turned, rest = mx.split(x, [2 * angles.shape[-1]], axis=-1)
        first, second = turned[..., ::2], turned[..., 1::2]
        cosine, sine = mx.cos(angles), mx.sin(angles)
        pairs = mx.stack([first * cosine - second * sine, first * sine + second * cosine], axis=-1)
        return mx.concatenate([pairs.flatten(-2), rest], axis=-1)

    def _scanned(
        self,
        v: mx.array,
        k: mx.array,
        q: mx.array,
        log_decay: mx.array,
        step: mx.array,
        share: mx.array,
        state: mx.array | None,
        last: list[mx.array | None],
    ) -> tuple[mx.array, mx.array]:
        """The trapezoids: (B, L, H, P), and the state after the last token."""
        nothing = mx.zeros((*v.shape[:1], *v.shape[2:], k.shape[-1]))
        own, before = share * step, (1 - share) * step * exp(log_decay)
        y, state = decayed_scan(own[..., None] * v, log_decay, k, q, nothing if state is None else state)
        earlier_k, earlier_v = (_shifted(now, held) for now, held in zip((k, v), last, strict=True))
        more, added = decayed_scan(before[..., None] * earlier_v, log_decay, earlier_k, q, nothing)
        return y + more, state + added


def _shifted(now: mx.array, held: mx.array | None) -> mx.array:
    """Each token's predecessor, (B, L, H, ·)."""
    first = mx.zeros_like(now[:, :1]) if held is None else held[:, None]
    return mx.concatenate([first, now[:, :-1]], axis=1)


def _within_a_turn(angles: mx.array) -> mx.array:
    """The same angles from -pi to pi."""
    return angles - 2 * pi * mx.floor(angles / (2 * pi) + 0.5)


def _heavy_tail(a: mx.array) -> mx.array:
    return mx.maximum(a, 0) + 1 / (1 - mx.minimum(a, 0))


def _last(before: mx.array | None, now: mx.array, mask: mx.array | None) -> mx.array:
    """What the last real token of each row has, (B, H, ·); a row of padding keeps what it had."""
    shape = (now.shape[0], *now.shape[2:])
    before = mx.zeros(shape) if before is None else before
    window = mx.concatenate([before[:, None], now], axis=1).flatten(2)
    return last_inputs(window, mask, 1).reshape(shape)
