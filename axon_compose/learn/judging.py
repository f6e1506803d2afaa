"""How well a model answers, while it is trained: loss and accuracy over held-out targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from axon_compose.learn.batches import LEFT_OUT
from axon_compose.learn.partition import likelihood
from axon_compose.model import LanguageModel

__all__ = ["answers", "evaluating", "put_in_order"]


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Let a model that is trained be evaluated for a while."""
    model.eval()
    try:
        yield
    finally:
        model.train()
        put_in_order(model)


def put_in_order(model: LanguageModel) -> None:
    """Let the model lay out its weights for training, which it cannot while a step is compiled."""
    mx.eval(model(mx.zeros((1, 1), mx.int32)))


def answers(model: LanguageModel, tokens: mx.array, targets: mx.array) -> mx.array:
    """(2,): the sum of the cross entropy over the targets that count, and how many of them have the largest logit."""
    logits = model(tokens).astype(mx.float32)
    counts = targets != LEFT_OUT
    wanted = mx.where(counts, targets, 0)
    losses = mx.where(counts, likelihood(logits, wanted)[0], 0)
    right = counts & (mx.argmax(logits, axis=-1) == wanted)
    return mx.stack([losses.sum(), right.sum().astype(mx.float32)])
