"""Rotary position embedding (Su et al., 2021), and how it is stretched to longer contexts.

A pair of dimensions turns once in `2π · period` tokens. Every stretch is a change of these periods, and of a gain on
what is rotated. They depend on the options alone, never on the length of a call: keys in a cache are rotated for good,
so a rotation that followed the length (as `dynamic` and `longrope` are defined for a single pass) would make an answer
depend on how the prompt was cut. Both are laid out once, for `max_position_embeddings` tokens: `dynamic` is what a
single pass of that length gets, `longrope` takes the long factors if that length exceeds the original one, else the
short ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from axon_core.cpu import fast
from axon_core.kernels import is_native_pass, native_rotation

if TYPE_CHECKING:
    from axon_core.specs._rope import RopeOptions, RopeScaling

__all__ = ["RoPE", "Turn", "rope_gain", "rope_periods"]

#: Cosines and sines of the angles by which the pairs are turned, each (L, pairs), or (B, 1, L, pairs).
Turn = tuple[mx.array, mx.array]
#: Positions whose angles are made together for passes of one token.
_ROWS: Final = 64


class RoPE(nn.Module):
    """Rotates pairs of each head's dimensions by angles that grow with the position.

    Args:
        head_dim: Width of a head; dimensions beyond the rotated ones pass unchanged.
        options: `RopeOptions`.
        stride: Tokens between two neighbouring positions.
    """

    def __init__(self, head_dim: int, options: RopeOptions, stride: int = 1) -> None:
        super().__init__()
        self.dims = options.rotated(head_dim)
        self.traditional = options.traditional
        periods = rope_periods(options, self.dims, head_dim)
        if options.scaling is not None and options.scaling.type == "proportional":
            # Pairs are those of the whole head, and only the chosen ones rotate.
            periods += [math.inf] * ((head_dim - self.dims) // 2)
            self.dims = 2 * len(periods)
        if options.reverse:
            periods = [-period for period in periods]
        if stride != 1:
            periods = [period / stride for period in periods]
        # The underscore keeps them out of the parameters: they are derived, not learned and not saved.
        self._periods = mx.array(periods, dtype=mx.float32)
        gain = rope_gain(options)
        self._layout = _layout(tuple(periods), head_dim, options.traditional)
        self._gain = None if gain == 1.0 else mx.array([gain] * self.dims + [1.0] * (head_dim - self.dims))

    def __call__(self, x: mx.array, offset: int | mx.array = 0, turn: Turn | None = None) -> mx.array:
        """Rotate.

        Args:
            x: (B, H, L, head_dim).
            offset: Position of the first token, int or (B,) integers.
            turn: By what to rotate instead of the angles of these positions, see `learned`.

        Returns:
            (B, H, L, head_dim).
        """
        if self._gain is not None:
            x = x * self._gain.astype(x.dtype)
        if turn is not None:
            return self._layout.turned(x, *turn)
        if isinstance(offset, int) and (is_native_pass(x) or (x.dtype == mx.float32 and fast())):
            return self._layout.rotated(x, *_angles(self._layout, offset, x.shape[2]))
        return mx.fast.rope(
            x, self.dims, traditional=self.traditional, base=None, scale=1.0, offset=offset, freqs=self._periods
        )

    def turn(self, offset: int) -> Turn | None:
        """Cosines and signed sines (1, head_dim) of one position; None where a gain multiplies what is rotated."""
        return _angles(self._layout, offset, 1) if self._gain is None else None

    def learned(self, alphas: mx.array, offset: int | mx.array, length: int) -> Turn:
        """The rotation of `length` positions with the frequency of each pair times `exp(alpha)`.

        Written out, so that gradients reach the alphas on every device.

        Args:
            alphas: (pairs,), of those that turn.
            offset: Position of the first token, int or (B,) integers.
            length: Tokens.
        """
        alphas = mx.pad(alphas, (0, self._periods.size - alphas.size))  # `proportional` has pairs that stand still
        if isinstance(offset, mx.array) and offset.ndim:
            offset = offset[:, None, None]
        frequencies = mx.exp(alphas.astype(mx.float32)) / self._periods
        angles = (mx.arange(length) + offset)[..., None] * frequencies
        return mx.cos(angles), mx.sin(angles)


@dataclass(frozen=True, eq=False)
class _Layout:
    """How a rotation is written out: a dimension times its cosine, plus its partner times a signed sine.

    Attributes:
        periods: Of the pairs.
        head_dim: Width of a head.
        traditional: Pairs are neighbours; else halves of what is rotated.
    """

    periods: tuple[float, ...]
    head_dim: int
    traditional: bool

    @property
    def members(self) -> tuple[slice, slice]:
        """The indices of the first and the second dimension of each pair."""
        pairs = len(self.periods)
        if self.traditional:
            return slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        return slice(pairs), slice(pairs, 2 * pairs)

    def rotated(self, x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
        """`x` (..., L, head_dim) by the angles of `_angles`."""
        y = native_rotation(x, cosines, sines, len(self.periods), traditional=self.traditional)
        return x * cosines + self.partners(x) * sines if y is None else y

    def turned(self, x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
        """`x` (..., L, head_dim) by a `Turn`, in float32."""
        first, second = (x[..., member].astype(mx.float32) for member in self.members)
        pair = [first * cosines - second * sines, second * cosines + first * sines]
        y = mx.stack(pair, axis=-1).flatten(-2) if self.traditional else mx.concatenate(pair, axis=-1)
        y, rest = y.astype(x.dtype), x[..., 2 * len(self.periods) :]
        return mx.concatenate([y, rest], axis=-1) if rest.shape[-1] else y

    def partners(self, x: mx.array) -> mx.array:
        """Every dimension of `x` (..., head_dim) in the place of its partner; others stay."""
        pairs = len(self.periods)
        turned, *rest = mx.split(x, [2 * pairs], axis=-1) if 2 * pairs < self.head_dim else (x,)
        if self.traditional:
            swapped = mx.unflatten(turned, -1, (pairs, 2))[..., ::-1].flatten(-2)
            return mx.concatenate([swapped, *rest], axis=-1) if rest else swapped
        low, high = mx.split(turned, 2, axis=-1)
        return mx.concatenate([high, low, *rest], axis=-1)


#: One for all layers that rotate alike, so that it is compared by identity instead of by value.
_layout = lru_cache(maxsize=64)(_Layout)


def _angles(layout: _Layout, offset: int, length: int) -> Turn:
    """Cosines and signed sines (length, head_dim), made once for all layers of a forward pass.

    Those of single tokens are made for many positions at once: numpy takes about as long for one.
    """
    if length > 1:
        return _several(layout, offset, length)
    row = offset % _ROWS
    return _single(layout, offset - row)[row]


@lru_cache(maxsize=4)
def _several(layout: _Layout, offset: int, length: int) -> Turn:
    cosine, sine = _numbers(layout, offset, length)
    return mx.array(cosine), mx.array(sine)


@lru_cache(maxsize=4)
def _single(layout: _Layout, offset: int) -> list[Turn]:
    """The angles of each of `_ROWS` positions by itself, (1, head_dim)."""
    rows = zip(*_numbers(layout, offset, _ROWS), strict=True)
    return [(mx.array(cosine[None]), mx.array(sine[None])) for cosine, sine in rows]


def _numbers(layout: _Layout, offset: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """By numpy, for the arrays outlive the pass, and the thread and stream that first asked for them."""
    positions = np.arange(offset, offset + length, dtype=np.float32)[:, None]
    angles = positions * np.reciprocal(np.array(layout.periods, dtype=np.float32))  # rounded as MLX's kernel does
    cosines, sines = np.cos(angles), np.sin(angles)
    shape = (length, layout.head_dim)
    cosine, sine = np.ones(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    first, second = layout.members
    cosine[:, first] = cosine[:, second] = cosines
    sine[:, first], sine[:, second] = -sines, sines
    return cosine, sine


def rope_periods(options: RopeOptions, dims: int, head_dim: int | None = None) -> list[float]:
    """Tokens in which each of the `dims // 2` pairs turns by one radian; a head is `dims` wide unless given."""
    plain = [options.theta ** (i / dims) for i in range(0, dims, 2)]
    scaling = options.scaling
    if scaling is None:
        return plain
    match scaling.type:
        case "proportional":
            return [scaling.stretch * options.theta ** (i / (head_dim or dims)) for i in range(0, dims, 2)]
        case "linear":
            return [period * scaling.stretch for period in plain]
        case "dynamic":
            return _dynamic(options.theta, dims, scaling)
        case "llama3":
            return [_llama3(period, scaling) for period in plain]
        case "yarn":
            return _yarn(plain, options.theta, scaling)
        case _:
            return [period * factor for period, factor in zip(plain, scaling.factors, strict=True)]


def rope_gain(options: RopeOptions) -> float:
    """Factor of rotated queries and of rotated keys: sharper attention for more keys to choose from."""
    scaling = options.scaling
    if scaling is None or scaling.type not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    growth = math.log(scaling.stretch)
    if scaling.type == "longrope":  # LongRoPE (Ding et al., 2024), as Phi-3 uses it
        return math.sqrt(1 + growth / math.log(scaling.original_length))
    if scaling.mscale and scaling.mscale_all_dim:  # DeepSeek-V2: one part of the gain is in the softmax scale
        return (0.1 * scaling.mscale * growth + 1) / (0.1 * scaling.mscale_all_dim * growth + 1)
    return 0.1 * growth + 1


def _dynamic(theta: float, dims: int, scaling: RopeScaling) -> list[float]:
    """NTK-aware: a larger base stretches slow pairs by about `factor` and leaves fast ones alone."""
    excess = max(1.0, scaling.length / scaling.original_length)
    stretch = scaling.stretch * excess - (scaling.stretch - 1)
    base = theta * stretch ** (dims / (dims - 2)) if dims > 2 else theta
    return [base ** (i / dims) for i in range(0, dims, 2)]


def _llama3(period: float, scaling: RopeScaling) -> float:
    """Llama 3.1: stretch pairs that do not turn often enough within the original length, blend in between."""
    turns = scaling.original_length / (2 * math.pi * period)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return period / (kept + (1 - kept) / scaling.stretch)


def _yarn(plain: list[float], theta: float, scaling: RopeScaling) -> list[float]:
    """YaRN (Peng et al., 2023): a ramp over the pairs, from kept (many turns) to stretched (few turns)."""
    dims = 2 * len(plain)

    def pair_with(turns: float) -> float:
        radians = scaling.original_length / (2 * math.pi * turns)
        return dims * math.log(radians) / (2 * math.log(theta))

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    width = last - first or 0.001  # a ramp of no width would divide by zero
    stretched = (min(1.0, max(0.0, (pair - first) / width)) for pair in range(len(plain)))
    return [period / (1 - s + s / scaling.stretch) for period, s in zip(plain, stretched, strict=True)]
