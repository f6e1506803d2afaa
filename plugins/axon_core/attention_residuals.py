"""Attention over depth in place of a sum: branches read a mixture of what earlier blocks of layers gave (Kimi K3)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims
from axon_core.linear import Linear
from axon_core.norms import RMSNorm
from axon_core.specs.attention_residuals import AttentionResidualsOptions

__all__ = ["AttentionResidual", "AttentionResiduals", "BlockStart", "FirstStart"]

#: The sum of the branches of the current block, (B, L, D), and what each block before it gave.
State = tuple[mx.array, ...]


class Mixture(nn.Module):
    r"""Reads all blocks by a softmax over them.

    .. math::
        h = \sum_k p_k b_k, \qquad p = \mathrm{softmax}_k\big(w \cdot \mathrm{norm}(b_k)\big)

    over the outputs b of earlier blocks and the sum of the current one. All of it is computed in float32.

    Args:
        hidden_size: Width D.
        options: `AttentionResidualsOptions`.
    """

    def __init__(self, hidden_size: int, options: AttentionResidualsOptions) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_size, options.norm_eps)
        self.proj = Linear(hidden_size, 1, bias=False)

    def mixed(self, state: State) -> mx.array:
        """(B, L, D)."""
        total, *blocks = state
        if not blocks:
            return total
        sources = mx.stack([*blocks, total], axis=-2).astype(mx.float32)
        shares = mx.softmax(self.proj(self.norm(sources)), axis=-2)
        return (shares * sources).sum(axis=-2).astype(total.dtype)


class AttentionResidual(Mixture):
    """Around a branch: it reads the mixture and is added to the sum of its block."""

    @classmethod
    def from_options(cls, options: AttentionResidualsOptions, dims: Dims) -> AttentionResidual:
        """Build from `AttentionResidualsOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def read(self, state: State) -> tuple[mx.array, State]:
        """What the branch reads, (B, L, D), and the state."""
        return self.mixed(state), state

    def write(self, state: State, y: mx.array) -> State:
        """The state with what the branch gave, `y` (B, L, D)."""
        total, *blocks = state
        return (total + y, *blocks)


class BlockStart(AttentionResidual):
    """The same around the first branch of a block: what it reads is the sum of a block that ends there."""

    def write(self, state: State, y: mx.array) -> State:
        """The state of a new block that begins as `y` (B, L, D)."""
        total, *blocks = state
        return (y, *blocks, total)


class FirstStart(BlockStart):
    """The same before any block has ended: there is nothing to mix, and the weights are those of a checkpoint alone."""

    def __init__(self, hidden_size: int, options: AttentionResidualsOptions) -> None:
        super().__init__(hidden_size, options)
        self.freeze()

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Nothing: no gradient reaches what is not used."""
        return self


class AttentionResiduals(Mixture):
    """Both ends: the embedding is the sum of a first block, and the final norm reads a mixture of its own."""

    @classmethod
    def from_options(cls, options: AttentionResidualsOptions, dims: Dims) -> AttentionResiduals:
        """Build from `AttentionResidualsOptions`; as wide as the hidden size."""
        return cls(dims.hidden_size, options)

    def expand(self, h: mx.array) -> State:
        """The state before the first layer, of the embedding (B, L, D)."""
        return (h,)

    def collapse(self, state: State) -> mx.array:
        """(B, L, D) for the final norm."""
        return self.mixed(state)
