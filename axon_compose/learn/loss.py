"""Losses of next tokens without the logits of a whole batch: in pieces, with a gradient of their own.

The logits of B sequences of L tokens are B·L·V numbers, for a large vocabulary far more than everything else of a
training step. Here the head runs on a few tokens at a time. Of each piece the loss and its gradient are computed
together and the logits dropped, so that memory holds one piece of logits, the gradient of the hidden states and that of
the head's weights, whatever the batch (as in Hsu et al. 2024, "Liger Kernel", arXiv:2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from axon_compose.analysis.cost import tokens_at_once
from axon_compose.learn.batches import LEFT_OUT
from axon_compose.learn.divergence import compared, divergence
from axon_compose.learn.partition import likelihood
from axon_compose.model import LanguageModel

__all__ = ["Losses", "Taught", "cross_entropy", "distillation"]

#: The parameters that gradients are wanted of: of the head, and those of the embedding that it reads.
Weights = dict[str, Any]


class Losses(NamedTuple):
    """Sums over the tokens that count; divide by `number` for means, after adding up what is accumulated.

    Attributes:
        total: What is minimised, float32 (); gradients flow through it alone.
        nll: Negative log likelihood of the targets in nats, without other terms.
        z: The sum of squared log partition functions, which `z_loss` multiplies.
        number: Of tokens that count, or the sum of their weights.
    """

    total: mx.array
    nll: mx.array
    z: mx.array
    number: mx.array


class Taught(NamedTuple):
    """Sums over the tokens that count, as of `Losses`.

    Attributes:
        total: What is minimised, float32 (); gradients flow through it alone.
        divergence: Of the softened predictions from the teacher's, in nats.
        nll: Negative log likelihood of the targets, which no temperature softens.
        number: Of tokens that count, or the sum of their weights.
    """

    total: mx.array
    divergence: mx.array
    nll: mx.array
    number: mx.array


def cross_entropy(
    model: LanguageModel,
    h: mx.array,
    targets: mx.array,
    *,
    weights: mx.array | None = None,
    z_loss: float = 0.0,
    chunk: int | None = None,
    gradient: bool = True,
) -> Losses:
    r"""The cross entropy of next tokens, by the model's own head.

    With the logits :math:`s_t` of token t, its target :math:`y_t` and :math:`Z_t = \log \sum_v \exp s_{tv}`, in float32
    whatever the type of the model is:

    .. math::
        \mathrm{total} = \sum_t w_t \left( Z_t - s_{t y_t} + \lambda Z_t^2 \right)

    The second term, the z-loss of PaLM (Chowdhery et al. 2022, arXiv:2204.02311), keeps Z near zero.

    Args:
        model: The model that `h` comes from.
        h: (B, L, D), what `model.hidden(tokens)` gave.
        targets: (B, L) token ids; -100 is left out.
        weights: (B, L), the weight of each target; 1 unless given.
        z_loss: The factor :math:`\lambda`, usually 1e-4; 0 for none.
        chunk: Tokens of a piece; as many as make 8 MiB of logits unless given, at least 64.
        gradient: Compute the gradient along with the loss. False for an evaluation: no gradient can be taken then.

    Returns:
        Sums and what they are divided by.
    """

    def each(logits: mx.array, wanted: mx.array, factor: mx.array) -> mx.array:
        return _sums(factor, *likelihood(logits, wanted), z_loss)

    wanted, factor = _counted(targets, weights)
    return Losses(*_reduced(model, h, each, (wanted, factor), chunk, gradient), factor.sum())


def distillation(
    model: LanguageModel,
    h: mx.array,
    teacher: LanguageModel,
    taught: mx.array,
    targets: mx.array,
    *,
    temperature: float = 1.0,
    weights: mx.array | None = None,
    chunk: int | None = None,
    gradient: bool = True,
) -> Taught:
    r"""How far the model's predictions are from a teacher's, both softened by a temperature.

    With the distributions :math:`p = \mathrm{softmax}(u / T)` of the teacher's logits and q of the model's (Hinton et
    al. 2015, arXiv:1503.02531):

    .. math::
        \mathrm{total} = T^2 \sum_t w_t \sum_v p_{tv} (\log p_{tv} - \log q_{tv})

    It is computed by `compared`, so equal predictions have no loss, and no gradient, to the bit. The same logits give
    the likelihood of the targets, to show.

    Args:
        model: The model that learns.
        h: (B, L, D), its hidden states.
        teacher: A model with the same vocabulary; no gradient reaches it.
        taught: (B, L, D'), what `teacher.hidden(tokens)` gave.
        targets: (B, L) token ids; -100 is left out.
        temperature: T.
        weights: (B, L), the weight of each token; 1 unless given.
        chunk: Tokens of a piece; as many as make 8 MiB of logits unless given, at least 64.
        gradient: As in `cross_entropy`.

    Returns:
        Sums and what they are divided by; `divergence` is without the factor :math:`T^2`.

    Raises:
        ValueError: If the vocabularies differ in size, or the temperature is not above 0.
    """
    sizes = [int(one.plan.dims.vocab_size) for one in (model, teacher)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the teacher's vocabulary has {sizes[1]} tokens, the model's {sizes[0]}")
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, not {temperature}")

    def each(logits: mx.array, piece: mx.array, wanted: mx.array, factor: mx.array) -> mx.array:
        theirs = teacher.head(piece[None], teacher.embedding)[0].astype(mx.float32)
        if temperature == 1:
            apart, _, partition = compared(theirs, logits)
            nll = partition - mx.take_along_axis(logits, wanted[:, None], axis=-1)[:, 0]
        else:
            apart = divergence(theirs / temperature, logits / temperature)
            nll = likelihood(mx.stop_gradient(logits), wanted)[0]
        apart, nll = (factor * apart).sum(), mx.stop_gradient((factor * nll).sum())
        return mx.stack([temperature**2 * apart, apart, nll])

    wanted, factor = _counted(targets, weights)
    rows = mx.stop_gradient(taught).reshape(-1, taught.shape[-1])
    return Taught(*_reduced(model, h, each, (rows, wanted, factor), chunk, gradient), factor.sum())


def _counted(targets: mx.array, weights: mx.array | None) -> tuple[mx.array, mx.array]:
    """Targets (N,) that can be looked up, and the factor of each, 0 for those that are left out."""
    counts = targets.reshape(-1) != LEFT_OUT
    factor = counts.astype(mx.float32)
    if weights is not None:
        factor = mx.where(counts, weights.reshape(-1).astype(mx.float32), 0.0)
    return mx.where(counts, targets.reshape(-1), 0), factor


def _sums(factor: mx.array, nll: mx.array, partition: mx.array, z_loss: float) -> mx.array:
    """(3,): the total, the negative log likelihood and the squared partition function of a piece."""
    nll, square = (factor * nll).sum(), (factor * partition * partition).sum()
    return mx.stack([nll + z_loss * square if z_loss else nll, nll, square])


def _reduced(
    model: LanguageModel,
    h: mx.array,
    each: Callable[..., mx.array],
    beside: tuple[mx.array, ...],
    chunk: int | None,
    gradient: bool,
) -> tuple[mx.array, mx.array, mx.array]:
    """The sums of `each(logits, *beside)`, three numbers, over pieces of tokens; the first has a gradient."""
    vocabulary = int(model.plan.dims.vocab_size)
    rows = h.reshape(-1, h.shape[-1])
    size = chunk or tokens_at_once(vocabulary)
    head = _Head(model)

    def value(rows: mx.array, weights: Weights, *beside: mx.array) -> mx.array:
        return each(head(rows, weights), *beside)

    pieces = [slice(start, start + size) for start in range(0, rows.shape[0], size)]
    if gradient:
        sums = _with_gradient(value, pieces, rows, head.weights(), beside)
    else:
        sums = mx.zeros((3,))
        for piece in pieces:
            (part,) = mx.depends([rows[piece]], [sums])
            sums = sums + value(part, {}, *(array[piece] for array in beside))
    _, second, third = mx.stop_gradient(sums)
    return sums[0], second, third


def _with_gradient(
    value: Callable[..., mx.array],
    pieces: Sequence[slice],
    rows: mx.array,
    weights: Weights,
    beside: tuple[mx.array, ...],
) -> mx.array:
    """The sums (3,), whose first has the gradient that is computed here, piece by piece.

    A custom function hands its outputs to its backward pass; so the gradients are outputs, which nobody else reads.
    """
    names = list(weights)

    @mx.custom_function
    def forward(rows: mx.array, *arrays: mx.array) -> tuple[mx.array, ...]:
        sums = mx.zeros((3,))
        slopes: list[mx.array] = []
        totals = [mx.zeros(array.shape, mx.float32) for array in arrays]
        for piece in pieces:
            # One piece after the other, or the logits of all would be alive for their gradients.
            (part,) = mx.depends([rows[piece]], [sums, *totals, *slopes[-1:]])
            others = [array[piece] for array in beside]

            def sums_of(part: mx.array, *arrays: mx.array, others: list[mx.array] = others) -> mx.array:
                return value(part, dict(zip(names, arrays, strict=True)), *others)

            (found,), (slope, *moved) = mx.vjp(sums_of, [part, *arrays], [mx.array([1.0, 0.0, 0.0])])
            sums = sums + found
            slopes.append(slope)
            totals = [total + move for total, move in zip(totals, moved, strict=True)]
        cast = (total.astype(array.dtype) for total, array in zip(totals, arrays, strict=True))
        return sums, mx.concatenate(slopes), *cast

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        factor = cotangents[0][0]
        return tuple((factor * slope).astype(slope.dtype) for slope in outputs[1:])

    found: Any = forward(rows, *weights.values())
    sums: mx.array = found[0]
    return sums


class _Head:
    """The head as a function of its weights and those of the embedding's that it reads.

    Args:
        model: Whose head it is; its modules stand for the weights while they run.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.ends: Mapping[str, nn.Module] = {"head": model.head, "embedding": model.embedding}
        use = model.plan.head
        touched = use.spec.touched(use.options, use.dims, 1) if use.spec.touched else None
        #: Parameters of the embedding that are read; all of them if the record does not say.
        self.read = None if touched is None else {name for name in touched if name.startswith("embedding.")}

    def weights(self) -> Weights:
        """Names and arrays of all that is trained."""
        found = {
            f"{end}.{name}": array
            for end, module in self.ends.items()
            for name, array in tree_flatten(module.trainable_parameters())
        }
        kept = self.read
        return {
            name: array for name, array in found.items() if name.startswith("head.") or kept is None or name in kept
        }

    def __call__(self, rows: mx.array, weights: Weights) -> mx.array:
        """Logits (C, V) in float32 of rows (C, D)."""
        before = {end: tree_map(lambda array: array, module.parameters()) for end, module in self.ends.items()}
        try:
            for end, module in self.ends.items():
                mine = [
                    (name.partition(".")[2], array) for name, array in weights.items() if name.startswith(f"{end}.")
                ]
                module.update(tree_unflatten(mine))
            logits: mx.array = self.ends["head"](rows[None], self.ends["embedding"])
        finally:
            for end, module in self.ends.items():
                module.update(before[end])
        return logits[0].astype(mx.float32)
