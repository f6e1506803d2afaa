"""How far two predictions are apart, token by token, in float32."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from axon_compose.model import LanguageModel

__all__ = ["divergence", "logits_of", "pieces"]

#: Logits that are in memory at once, of each model.
_AT_ONCE = 2**22


def divergence(theirs: mx.array, ours: mx.array) -> mx.array:
    r"""The Kullback-Leibler divergence of our prediction from theirs.

    With :math:`d = \log q - \log p` it is summed as

    .. math::
        \mathrm{KL}(p \| q) = \sum_v p_v (e^{d_v} - 1 - d_v)

    which is :math:`-\sum p d`, as both sum to one, but has no term below zero: of equal predictions nothing is left,
    and of nearly equal ones no rounding of the size of the entropy.

    Args:
        theirs: (..., V), logits of p.
        ours: (..., V), logits of q.

    Returns:
        (...), nats, float32.
    """
    p, q = (logits.astype(mx.float32) for logits in (theirs, ours))
    p, q = (scores - mx.logsumexp(scores, axis=-1, keepdims=True) for scores in (p, q))
    d = q - p
    near = mx.exp(p) * (mx.expm1(mx.clip(d, -1, 1)) - d)
    far = mx.exp(q) - mx.exp(p) * (1 + d)  # without the exponential of a large d
    return mx.where(mx.abs(d) < 1, near, far).sum(axis=-1)


def logits_of(model: LanguageModel, h: mx.array) -> mx.array:
    """(N, V) in float32, of rows (N, D) that `model.hidden` gave."""
    logits: mx.array = model.head(h[None], model.embedding)
    return logits[0].astype(mx.float32)


def pieces(rows: int, vocabulary: int) -> Iterator[slice]:
    """Rows whose logits are computed at once."""
    size = max(1, _AT_ONCE // vocabulary)
    return (slice(start, start + size) for start in range(0, rows, size))
