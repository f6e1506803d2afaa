"""How well a model answers: loss and accuracy over held-out targets."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from axon_compose.learn.batches import LEFT_OUT, Batches
from axon_compose.model import LanguageModel

__all__ = ["judged"]


def judged(model: LanguageModel, batches: Batches) -> tuple[float, float]:
    """Loss and accuracy over the held-out targets that count, by the logits that the model gives."""
    model.eval()
    try:
        found = np.sum([_sums(model, tokens, targets) for tokens, targets in batches.held_out()], axis=0)
    finally:
        model.train()
        mx.eval(model(mx.zeros((1, 1), mx.int32)))  # its weights are put in order outside of a compiled step
    loss, right, number = found.tolist()
    return loss / number, right / number


def _sums(model: LanguageModel, tokens: mx.array, targets: mx.array) -> list[float]:
    logits = model(tokens).astype(mx.float32)
    counts = targets != LEFT_OUT
    wanted = mx.where(counts, targets, 0)
    score = mx.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
    losses = mx.where(counts, mx.logsumexp(logits, axis=-1) - score, 0)
    right = counts & (mx.argmax(logits, axis=-1) == wanted)
    return [float(each.sum()) for each in (losses, right, counts)]
