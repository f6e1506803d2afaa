r"""Log partition functions and likelihoods of logits, with gradients of their own.

With the logits :math:`s_v` of a token, :math:`Z = \log \sum_v \exp s_v` and :math:`p_v = \exp(s_v - Z)`:

.. math::
    \frac{\partial Z}{\partial s_v} = p_v, \qquad \frac{\partial (Z - s_y)}{\partial s_v} = p_v - [v = y]

A vocabulary has tens of thousands of exponentials for each token, forward and backward. If MLX evaluates them one by
one, they take the CPU a fifth of the training step of a model of 20M parameters and 8,192 tokens; here they are those
of `axon_compose.model.exponential`, or of `axon-native` where that is installed. On a GPU, and for a few logits, they
are MLX's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import mlx.core as mx

from axon_compose.model.exponential import exp_up_to, is_worth_it
from axon_compose.model.native import kernels

__all__ = ["by_blocks", "likelihood", "log_partition", "shares"]

#: Numbers that are worked on at a time: 1 MiB.
_BLOCK: Final = 1 << 18


def log_partition(logits: mx.array) -> mx.array:
    """The log of the sum of exponentials, (...), of logits (..., V)."""
    return cast("mx.array", _log_partition(logits)) if is_worth_it(logits) else mx.logsumexp(logits, axis=-1)


@mx.custom_function
def _log_partition(logits: mx.array) -> mx.array:
    return by_blocks(_log_partition_of, logits)


def _log_partition_of(logits: mx.array) -> mx.array:
    highest = logits.max(axis=-1, keepdims=True)
    return (highest + mx.log(exp_up_to(logits, highest).sum(axis=-1, keepdims=True)))[..., 0]


@_log_partition.vjp
def _log_partition_vjp(logits: mx.array, cotangent: mx.array, partition: mx.array) -> mx.array:
    return _shares(logits, partition, cotangent)


def shares(logits: mx.array, partition: mx.array) -> mx.array:
    """The softmax of logits (..., V), whose log partition functions (..., 1) are known; no gradient can be taken."""
    return exp_up_to(logits, partition) if is_worth_it(logits) else mx.exp(logits - partition)


def _shares(logits: mx.array, partition: mx.array, factor: mx.array) -> mx.array:
    """The softmax of logits (..., V) times a factor (...) of each token."""
    beside = (partition[..., None], factor[..., None])
    if is_worth_it(logits):
        return by_blocks(exp_up_to, logits, *beside)
    return mx.exp(logits - beside[0]) * beside[1]


def by_blocks(function: Callable[..., mx.array], logits: mx.array, *beside: mx.array) -> mx.array:
    """`function(logits, *beside)` of some rows at a time.

    MLX makes room for the results of a dozen operations ahead, which would be a dozen arrays as large as the logits.
    """
    width = logits.shape[-1]
    rows = [array.reshape(-1, array.shape[-1]) for array in (logits, *beside)]
    step = max(1, _BLOCK // width)
    parts: list[mx.array] = []
    for start in range(0, rows[0].shape[0], step):
        block, *others = (array[start : start + step] for array in rows)
        if parts:
            (block,) = mx.depends([block], parts[-1:])
        parts.append(function(block, *others))
    found = parts[0] if len(parts) == 1 else mx.concatenate(parts)
    return found.reshape(*logits.shape[:-1], *found.shape[1:])


def likelihood(logits: mx.array, wanted: mx.array) -> tuple[mx.array, mx.array]:
    """The negative log likelihood of tokens, and the log partition function.

    Args:
        logits: (..., V).
        wanted: (...) token ids.

    Returns:
        Two arrays (...), in nats.
    """
    module = kernels() if is_worth_it(logits) else None
    if module is not None:
        found = module.likelihood(logits, wanted.astype(mx.int32))
        return found[0], found[1]
    at = wanted[..., None]

    @mx.custom_function
    def forward(logits: mx.array) -> tuple[mx.array, mx.array]:
        partition = log_partition(logits)
        return partition - mx.take_along_axis(logits, at, axis=-1)[..., 0], partition

    @forward.vjp
    def backward(logits: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]) -> mx.array:
        towards_nll, towards_partition = cotangents
        shares = _shares(logits, outputs[1], towards_nll + towards_partition)
        right = mx.take_along_axis(shares, at, axis=-1) - towards_nll[..., None]
        return mx.put_along_axis(shares, at, right, axis=-1)

    both: Any = forward(logits)
    return both[0], both[1]
