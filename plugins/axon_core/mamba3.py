r"""Mamba-3 (Lahoti et al. 2026, "Mamba-3: Improved Sequence Modeling using State Space Principles").

For every head, with a state h of P x N, steps :math:`\Delta`, rates :math:`a < 0` and shares :math:`\lambda` made of
the input, the trapezoid between two tokens takes the place of one rectangle per token:

.. math::
    h_t = \alpha_t h_{t-1} + (1 - \lambda_t) \Delta_t \alpha_t \sum_r v_{t-1,r} k_{t-1,r}^T
        + \lambda_t \Delta_t \sum_r v_{t,r} k_{t,r}^T,
    \qquad \alpha_t = e^{\Delta_t a_t}, \qquad y_{t,r} = h_t q_{t,r} + D v_{t,r}

The states are complex, as rotations: pairs of k and q are turned by
:math:`\theta_t = \theta_{t-1} + \Delta_t \omega_t`. A head has one input and output (SISO, r = 1), or R of each (MIMO),
which are multiples of the same x and are joined by learned factors:

.. math::
    v_{t,r} = m^x_r \odot x_t, \qquad y_t = \sum_r m^o_r \odot y_{t,r} \odot \mathrm{silu}(m^z_r \odot z_t)

It is computed by two scans of Mamba-2 (`axon_core.ssd`), of the tokens themselves and of those before them, whose
outputs and states add up. One scan of both together would be shorter, for what token j leaves for all later ones is
:math:`(\lambda_j \Delta_j + (1 - \lambda_{j+1}) \Delta_{j+1}) v_j k_j^T`; but then the second part would have to be
taken off what a token reads of itself, where it may be a thousand times as large as what is left.

With several inputs, a scan runs over R entries for each token, the first of which alone decays; what an entry does not
see of the later ones of its token, a product within the token adds.
"""

from __future__ import annotations

from itertools import accumulate
from math import pi
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
from axon_core.steps import first_steps

__all__ = ["Mamba3"]

#: Added to the mean square in the norms of k, q and the output.
_EPS: Final = 1e-5


class Mamba3(nn.Module):
    """Mamba-3's mixer.

        z, x, k, q, dt, a, share, angle = in_proj(u)
        step  = softplus(dt + dt_bias)
        decay = exp(-max(heavy_tail(a), a_floor) * step)
        k, q  = rotated(B_norm(k) + B_bias), rotated(C_norm(q) + C_bias)     by sums of step * pi * tanh(angle)
        v     = mimo_x * x                                                   x itself with one input
        y     = scan(v, k, q, step, decay, sigmoid(share)) + D * v
        y     = y * silu(mimo_z * z)                           or norm(y) * silu(mimo_z * z), each head by itself
        out_proj(sum of mimo_o * y)

    with `heavy_tail(a)` 1 + a above zero and 1 / (1 - a) below. Names, shapes, the order of the projection and the
    pairs that are rotated (neighbours; with several inputs one of either half) are those of
    `mamba_ssm.modules.mamba3`. Everything between the projections is computed in float32.

    Args:
        options: `Mamba3Options`.
        hidden_size: Width D of input and output.
    """

    def __init__(self, options: Mamba3Options, hidden_size: int) -> None:
        super().__init__()
        heads, states, rank = options.heads(hidden_size), options.d_state, options.rank
        inner = heads * options.head_dim
        self.options, self.num_heads = options, heads
        self.in_proj = Linear(hidden_size, sum(options.sections(hidden_size)), bias=False)
        self.out_proj = Linear(inner, hidden_size, bias=False)
        self.dt_bias = first_steps((heads,))
        self.B_bias, self.C_bias = mx.ones((heads, rank, states)), mx.ones((heads, rank, states))
        self.B_norm, self.C_norm = RMSNorm(states, _EPS), RMSNorm(states, _EPS)
        self.D = mx.ones((heads,))
        if options.mimo_rank:
            shape = (heads, rank, options.head_dim)
            self.mimo_x, self.mimo_z, self.mimo_o = mx.full(shape, 1 / rank), mx.ones(shape), mx.full(shape, 1 / rank)
        if options.norm:
            self.norm = GatedRMSNorm(inner, _EPS, heads, before_gate=True)

    @classmethod
    def from_options(cls, options: Mamba3Options, dims: Dims) -> Mamba3:
        """Build from `Mamba3Options`; input and output are as wide as the hidden size."""
        return cls(options, dims.hidden_size)

    def __call__(self, u: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Run over a chunk of a sequence.

        Args:
            u: Input, (B, L, D).
            mask: False on padding, (B, L); asked of the cache unless given.
            cache: None, mlx-lm's `ArraysCache(4)`, which is updated, or a list of the four arrays, which is not.

        Returns:
            The output (B, L, D), and the cache, all in float32: the angles (B, H, pairs), the state (B, H, P, N), and
            the last token's k (B, R, H, N) and x (B, H, P). Without a cache, a new list.
        """
        batch, length, _ = u.shape
        (angles, state, *last), mask = read_states(cache, mask, length, count=4)
        projected = self.in_proj(u).astype(mx.float32)
        cuts = list(accumulate(self.options.sections(u.shape[-1])))[:-1]
        z, x, k, q, dt, a, share, angle = mx.split(projected, cuts, axis=-1)
        step = softplus(dt + self.dt_bias)
        rate = mx.maximum(_heavy_tail(a), self.options.a_floor)
        x, share = mx.unflatten(x, -1, (self.num_heads, -1)), sigmoid(share)
        if mask is not None:
            step, x = mx.where(mask[..., None], step, 0.0), mx.where(mask[..., None, None], x, 0.0)
            rate, share, angle = (mx.where(mask[..., None], part, 0.0) for part in (rate, share, angle))
        if angles is None:
            angles = mx.zeros((batch, self.num_heads, angle.shape[-1]))
        # Each within one turn, so that sums of them stay exact however large the steps are.
        turns = _within_a_turn(step[..., None] * (pi * mx.tanh(angle))[:, :, None])
        turned = mx.cumsum(turns, axis=1) + angles[:, None]
        k, q = self._rotated("B", k, turned), self._rotated("C", q, turned)
        if mask is not None:
            k = mx.where(mask[..., None, None, None], k, 0.0)
        y, state = self._scanned(x, k, q, -rate * step, step, share, state, last)
        kept = [_last(before, now, mask) for before, now in zip(last, (k, x), strict=True)]
        y = self._gated(y + self.D[:, None] * self._inputs(x), z)
        caches = [_within_a_turn(turned[:, -1]), state, *kept]
        return self.out_proj(y.astype(u.dtype)), write_states(cache, caches, length)

    def _rotated(self, name: str, k: mx.array, angles: mx.array) -> mx.array:
        """Normalised, shifted and turned: (B, L, R G N) to (B, L, R, H, N)."""
        k = self[f"{name}_norm"](mx.unflatten(k, -1, (self.options.rank, -1, self.options.d_state)))
        k = mx.repeat(k, self.num_heads // k.shape[3], axis=3) + self[f"{name}_bias"].swapaxes(0, 1)
        cosine, sine = mx.cos(angles)[:, :, None], mx.sin(angles)[:, :, None]
        pairs = angles.shape[-1]
        if self.options.mimo_rank:
            half = k.shape[-1] // 2
            first, still, second, rest = mx.split(k, [pairs, half, half + pairs], axis=-1)
            turned = [first * cosine - second * sine, still, first * sine + second * cosine, rest]
            return mx.concatenate(turned, axis=-1)
        neighbours, rest = mx.split(k, [2 * pairs], axis=-1)
        first, second = neighbours[..., ::2], neighbours[..., 1::2]
        neighbours = mx.stack([first * cosine - second * sine, first * sine + second * cosine], axis=-1)
        return mx.concatenate([neighbours.flatten(-2), rest], axis=-1)

    def _inputs(self, x: mx.array) -> mx.array:
        """Of each head: (B, L, H, P) to (B, L, R, H, P)."""
        return x[:, :, None] * self.mimo_x.swapaxes(0, 1) if "mimo_x" in self else x[:, :, None]

    def _scanned(
        self,
        x: mx.array,
        k: mx.array,
        q: mx.array,
        log_decay: mx.array,
        step: mx.array,
        share: mx.array,
        state: mx.array | None,
        last: list[mx.array | None],
    ) -> tuple[mx.array, mx.array]:
        """The trapezoids: (B, L, R, H, P), and the state after the last token."""
        nothing = mx.zeros((*x.shape[:1], *x.shape[2:], k.shape[-1]))
        state = nothing if state is None else state
        own, before = share * step, (1 - share) * step * exp(log_decay)
        earlier_k, earlier_x = (_shifted(now, held) for now, held in zip((k, x), last, strict=True))
        v = own[:, :, None, :, None] * self._inputs(x)
        earlier_v = before[:, :, None, :, None] * self._inputs(earlier_x)
        if x.shape[1] == 1:
            return _one_token(v, earlier_v, log_decay, k, earlier_k, q, state)
        y, state = _entry_by_entry(v, log_decay, k, q, state)
        more, added = _entry_by_entry(earlier_v, log_decay, earlier_k, q, nothing)
        return y + more, state + added

    def _gated(self, y: mx.array, z: mx.array) -> mx.array:
        """Normalised, gated and joined: (B, L, R, H, P) to (B, L, H P)."""
        if "mimo_z" not in self:
            y = y.flatten(2)
            return self.norm(y, z) if "norm" in self else y * silu(z)
        z = (mx.unflatten(z, -1, (self.num_heads, 1, -1)) * self.mimo_z).swapaxes(2, 3)
        y = self.norm(y.flatten(3), z.flatten(3)).reshape(y.shape) if "norm" in self else y * silu(z)
        return (y * self.mimo_o.swapaxes(0, 1)).sum(2).flatten(2)


def _one_token(
    v: mx.array,
    earlier_v: mx.array,
    log_decay: mx.array,
    k: mx.array,
    earlier_k: mx.array,
    q: mx.array,
    state: mx.array,
) -> tuple[mx.array, mx.array]:
    """Both scans over one token, as the recurrence has it; shapes are those of `_entry_by_entry`."""
    v, earlier_v, k, earlier_k, q = (part[:, 0].swapaxes(1, 2) for part in (v, earlier_v, k, earlier_k, q))
    inputs = mx.concatenate([earlier_v, v], 2).swapaxes(-1, -2) @ mx.concatenate([earlier_k, k], 2)
    state = exp(log_decay)[:, 0, :, None, None] * state + inputs
    return (q @ state.swapaxes(-1, -2)).swapaxes(1, 2)[:, None], state


def _entry_by_entry(
    v: mx.array, log_decay: mx.array, k: mx.array, q: mx.array, state: mx.array
) -> tuple[mx.array, mx.array]:
    """The scan where R entries of a token go into the state together: (B, L, R, H, P), and the state after the last.

    Args:
        v: Inputs, (B, L, R, H, P).
        log_decay: Of each token, (B, L, H).
        k: (B, L, R, H, N).
        q: (B, L, R, H, N).
        state: (B, H, P, N).
    """
    rank = v.shape[2]
    if rank == 1:
        y, state = decayed_scan(v[:, :, 0], log_decay, k[:, :, 0], q[:, :, 0], state)
        return y[:, :, None], state
    decays = mx.concatenate([log_decay[:, :, None], mx.zeros((*log_decay.shape[:2], rank - 1, log_decay.shape[2]))], 2)
    y, state = decayed_scan(v.flatten(1, 2), decays.flatten(1, 2), k.flatten(1, 2), q.flatten(1, 2), state)
    v, k, q = (part.swapaxes(2, 3) for part in (v, k, q))
    later = mx.triu(q @ k.swapaxes(-1, -2), 1) @ v
    return mx.unflatten(y, 1, (-1, rank)) + later.swapaxes(2, 3), state


def _shifted(now: mx.array, held: mx.array | None) -> mx.array:
    """Each token's predecessor, (B, L, ...)."""
    first = mx.zeros_like(now[:, :1]) if held is None else held[:, None]
    return mx.concatenate([first, now[:, :-1]], axis=1)


def _within_a_turn(angles: mx.array) -> mx.array:
    """The same angles from -pi to pi."""
    return angles - 2 * pi * mx.floor(angles / (2 * pi) + 0.5)


def _heavy_tail(a: mx.array) -> mx.array:
    return mx.maximum(a, 0) + 1 / (1 - mx.minimum(a, 0))


def _last(before: mx.array | None, now: mx.array, mask: mx.array | None) -> mx.array:
    """What the last real token of each row has, (B, ...); a row of padding keeps what it had."""
    shape = (now.shape[0], *now.shape[2:])
    before = mx.zeros(shape) if before is None else before
    window = mx.concatenate([before[:, None], now], axis=1).flatten(2)
    return last_inputs(window, mask, 1).reshape(shape)
