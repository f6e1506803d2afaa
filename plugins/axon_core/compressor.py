"""Compressed keys: one entry for every few tokens of a sequence (DeepSeek-AI, 2026, "DeepSeek-V4", section 2.3).

Entries live in mlx-lm's own caches. The one of tokens w·r to w·r+r-1 is known with the last of them, and is stored in
the places of the r tokens after those, a piece of it in each: so the cache counts tokens, and batches of unequal rows,
padding on either side and rows that come and go are moved by mlx-lm as for any keys. What is not stored yet (the newest
entry, and the tokens of the next one) is a state of constant size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.rope import RoPE
from axon_core.specs._rope import RopeOptions

__all__ = ["Compressor", "Progress", "Trailing"]

Count = int | mx.array


class Trailing(nn.Module):
    """Rotation of the last dimensions of each head.

    Args:
        width: How many.
        options: `RopeOptions`.
        stride: Tokens between two neighbouring positions.
    """

    def __init__(self, width: int, options: RopeOptions, stride: int = 1) -> None:
        super().__init__()
        self.width = width
        self.rope = RoPE(width, options, stride)

    def __call__(self, x: mx.array, offset: Count) -> mx.array:
        """Rotate `x` (B, heads, L, head_dim), whose first position is `offset`, int or (B,)."""
        plain, turned = mx.split(x, [x.shape[-1] - self.width], axis=-1)
        return mx.concatenate([plain, self.rope(turned, offset)], axis=-1)


@dataclass(frozen=True)
class Progress:
    """How far each row of a batch is: numbers where all rows are alike, else arrays (B,).

    Attributes:
        ratio: Tokens of an entry.
        length: Tokens of this call, L.
        offset: Position of the first of them.
        valid: How many of them are no padding behind the end of a sequence.
    """

    ratio: int
    length: int
    offset: Count
    valid: Count

    @property
    def alike(self) -> bool:
        """Whether all rows are."""
        return isinstance(self.offset, int)

    @cached_property
    def inside(self) -> Any:
        """Tokens of the entry that is not complete yet."""
        return self.offset % self.ratio

    @property
    def first(self) -> Any:
        """The number of the entry that the first token belongs to; negative in padding."""
        return self.offset // self.ratio

    @property
    def most(self) -> int:
        """Entries that this call completes in any row, at most."""
        return (self.inside + self.length if self.alike else self.length + self.ratio - 1) // self.ratio

    @property
    def done(self) -> Any:
        """Entries that this call completes."""
        return (self.inside + self.valid) // self.ratio

    @property
    def starts(self) -> mx.array:
        """The position of the first token, (B or 1, 1)."""
        return mx.array(self.offset).reshape(-1, 1)

    @property
    def seen(self) -> mx.array:
        """Entries that each query may attend to, (B or 1, L): those that are complete with its own token."""
        return (self.starts + mx.arange(self.length) + 1) // self.ratio


class Compressor(nn.Module):
    r"""Pools the tokens of an entry, each dimension with weights of its own.

        weight_j = softmax over the tokens j of an entry of (gate_proj(x_j) + position_bias_j)
        entry    = rope(kv_norm(sum over j of weight_j * kv_proj(x_j)))

    at the position of its first token. With overlap there are two projections, and the tokens of the entry before take
    part with the first of them.

    Args:
        hidden_size: Width D of the model.
        width: Width of an entry.
        ratio: Tokens of an entry, a divisor of the width.
        overlap: Whether the tokens before take part.
        rope: Rotation.
        rope_dim: Dimensions that are rotated, the last ones.
        norm_eps: Added to the mean square in the norm.
    """

    def __init__(
        self, hidden_size: int, width: int, ratio: int, overlap: bool, rope: RopeOptions, rope_dim: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.width, self.ratio, self.overlap = width, ratio, overlap
        #: Tokens before this call that an entry may need.
        self.before = (2 * ratio if overlap else ratio) - 1
        series = 2 if overlap else 1
        self.kv_proj = Linear(hidden_size, series * width, bias=False)
        self.gate_proj = Linear(hidden_size, series * width, bias=False)
        self.position_bias = mx.zeros((ratio, series * width))
        self.kv_norm = RMSNorm(width, norm_eps)
        self.rope = Trailing(rope_dim, rope, ratio)

    def __call__(
        self, x: mx.array, states: list[mx.array | None], at: Progress
    ) -> tuple[mx.array, mx.array, list[mx.array]]:
        """Compress.

        Args:
            x: (B, L, D).
            states: Projections and gates of the tokens before, (B, before, ·), and the newest entry (B, 1, width); None
                at the beginning.
            at: How far each row is.

        Returns:
            The newest entry before this call and those that it completes, (B, 1 + at.most, width); the pieces that
            belong in the places of the tokens, (B, L, width // ratio); and the new states.
        """
        batch = x.shape[0]
        held = [self.kv_proj(x), self.gate_proj(x)]
        for number, state in enumerate(states[:2]):
            old = state if state is not None else mx.zeros((batch, self.before, held[number].shape[-1]), x.dtype)
            held[number] = mx.concatenate([old, held[number]], axis=1)
        last = states[2] if states[2] is not None else mx.zeros((batch, 1, self.width), x.dtype)
        entries = mx.concatenate([last, self._entries(held[0], held[1], at)], axis=1) if at.most else last
        pieces = entries.reshape(batch, -1, self.width // self.ratio)
        new = [_part(array, at.valid, self.before) for array in held]
        return entries, _part(pieces, at.inside, at.length), [*new, _part(entries, at.done, 1)]

    def _entries(self, values: mx.array, gates: mx.array, at: Progress) -> mx.array:
        """(B, at.most, width), of those that begin with the one that the first token belongs to."""
        start, count = self.before - at.inside, at.most * self.ratio

        def cut(array: mx.array, start: Any) -> mx.array:
            return _part(array, start, count).reshape(array.shape[0], at.most, self.ratio, -1)

        values_of, gates_of = cut(values, start), cut(gates, start) + self.position_bias.astype(gates.dtype)
        if self.overlap:
            # The entry before the first one has no tokens.
            number = at.starts // self.ratio + mx.arange(at.most)
            earlier = cut(gates, start - self.ratio) + self.position_bias.astype(gates.dtype)
            earlier = mx.where((number <= 0)[..., None, None], -mx.inf, earlier[..., : self.width])
            gates_of = mx.concatenate([earlier, gates_of[..., self.width :]], axis=2)
            before = cut(values, start - self.ratio)[..., : self.width]
            values_of = mx.concatenate([before, values_of[..., self.width :]], axis=2)
        weights = mx.softmax(gates_of.astype(mx.float32), axis=2).astype(values.dtype)
        pooled = self.kv_norm((values_of * weights).sum(axis=2))
        return self.rope(pooled[:, None], at.first)[:, 0]

    def history(
        self, entries: mx.array, stored: mx.array | None, newest: mx.array, at: Progress, padding: Any
    ) -> mx.array:
        """All entries so far, (B, N, width), in their order.

        Args:
            entries: What calling gave.
            stored: The pieces of all tokens in the cache (B, S, width // ratio), None without a cache.
            newest: The newest entry, (B, 1, width).
            at: How far each row is.
            padding: Places before each row's first token, (B,), or None.
        """
        if stored is None:
            return entries[:, 1:]
        count = stored.shape[1] // self.ratio
        if at.alike:
            kept = stored[:, self.ratio : max(1, count) * self.ratio].reshape(stored.shape[0], -1, self.width)
            return mx.concatenate([kept, newest], axis=1) if count else kept
        start = mx.broadcast_to(mx.array(0 if padding is None else padding) + self.ratio, (stored.shape[0],))
        kept = _part(stored, start, count * self.ratio).reshape(stored.shape[0], count, self.width)
        complete = (at.starts + mx.array(at.valid).reshape(-1, 1)) // self.ratio
        is_newest = mx.arange(count) == complete - 1
        return mx.where(is_newest[..., None], newest, kept)


def _part(x: mx.array, start: Count, count: int) -> mx.array:
    """`count` places of `x` (B, N, width) from `start`, int or (B,), on; of those outside, any number is given."""
    if isinstance(start, int):
        return x[:, start : start + count]
    index = mx.clip(start[:, None] + mx.arange(count), 0, x.shape[1] - 1)
    return mx.take_along_axis(x, index[..., None], axis=1)
