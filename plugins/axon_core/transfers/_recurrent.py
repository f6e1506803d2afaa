r"""What linear attention and state spaces take over of attention.

Softmax attention gives :math:`\sum_s e^{q_t \cdot k_s} v_s / \sum_s e^{q_t \cdot k_s}`. Dropping the exponential and
the denominator, and letting the past decay by :math:`g`, leaves :math:`\sum_s g^{t-s} (q_t \cdot k_s) v_s`, a state of
the size of :math:`v k^T`: the same projections, read otherwise. What normalises the sum is a norm of the output.

A norm gives every token's output the same size, while attention averages over many values that cancel; and many heads
of trained models attend to a first token whose value is nearly zero. In layers 10 and 20 of SmolLM2-135M (a 4-bit
GGUF, 320 tokens of Python's documentation, perplexity 18.7) the divergence of the logits is 0.178 if both add nothing.
With outputs of the size of values it is 7.3 for Kimi delta attention, 8.9 for Mamba-2, 9.0 for lightning attention and
13 for RWKV-7; at a tenth of that 0.30, 0.44, 0.50 and 0.39; at 0.03 it is 0.174, 0.188, 0.202 and 0.166. So they begin
at 0.03, and training finds the rest.
"""

from __future__ import annotations

from math import log

import numpy as np

from axon_core.transfers._heads import Array, Projections, spread

__all__ = ["LN2", "flat", "half_lives", "outputs", "taps", "value_sizes"]

LN2 = log(2)
#: Half-life of the slowest head over that of the fastest.
_RANGE = 64.0


def half_lives(heads: int, slowest: float) -> Array:
    """Half-lives in tokens, (heads,), evenly spread in their logarithm; a head alone has the slowest."""
    if heads == 1:
        return np.full(1, slowest, np.float32)
    return (slowest * _RANGE ** np.linspace(-1, 0, heads)).astype(np.float32)


def taps(channels: int, count: int, tap: float) -> Array:
    """Of a causal depthwise convolution that sees the current token alone, (channels, count, 1)."""
    made = np.zeros((channels, count, 1), np.float32)
    made[:, -1] = tap
    return made


def flat(array: Array, heads: int) -> Array:
    """By heads to rows, with other numbers of heads: (old, width, ...) to (heads * width, ...)."""
    made = spread(array, heads)
    return made.reshape(-1, *made.shape[2:])


def value_sizes(read: Projections, heads: int) -> Array:
    """The root mean square of each head's values, (heads,), for inputs of unit variance."""
    square = np.square(read.v.astype(np.float64)).sum(axis=-1).mean(axis=-1)
    return np.sqrt(spread(square, heads)).astype(np.float32)


def outputs(read: Projections, factors: Array) -> Array:
    """The output projection for as many heads as there are factors, (D, heads * V); the sum over heads stays."""
    heads, old = len(factors), read.o.shape[1]
    made = spread(read.o, heads, axis=1) * np.float32(old / heads) * factors[:, None]
    return made.reshape(len(made), -1)
