"""Which experts a token is sent to."""

from __future__ import annotations

import mlx.core as mx

from axon_core.specs._moe_options import GroupScoreName

__all__ = ["best", "one_by_one", "within_groups"]


def best(scores: mx.array, k: int) -> mx.array:
    """Indices of the `k` largest entries of the last axis; of equals, the lower index first.

    A sort, which is stable on every device; `mx.argpartition` keeps no order among equals.
    """
    return mx.stop_gradient(mx.argsort(-scores, axis=-1)[..., :k])


def one_by_one(logits: mx.array, chosen: mx.array, band: float) -> mx.array:
    """Weights of SparseMixer (Liu et al. 2023, arXiv:2310.00811), as Phi-3.5-MoE has them when it is not trained.

    Each choice is weighed against the experts that are left and not much worse: the softmax over those whose output is
    within `band` of the best, relative to the larger of both sizes.

    Args:
        logits: (..., experts).
        chosen: (..., k), from the best to the worst.
        band: Largest relative distance.

    Returns:
        (..., k).
    """
    left, weights = logits, []
    for number in range(chosen.shape[-1]):
        index = chosen[..., number : number + 1]
        top = mx.stop_gradient(mx.take_along_axis(logits, index, axis=-1))
        # Written so that an output of 0 beside a best of 0, whose distance is no number, counts as near.
        far = (top - logits) / mx.maximum(mx.abs(logits), top) > band
        shares = mx.softmax(mx.where(far, -mx.inf, left), axis=-1)
        weights.append(mx.take_along_axis(shares, index, axis=-1))
        left = mx.put_along_axis(left, index, mx.array(-mx.inf), axis=-1)
    return mx.concatenate(weights, axis=-1)


def within_groups(scores: mx.array, num_groups: int, top_k_groups: int, group_score: GroupScoreName) -> mx.array:
    """Leave the scores of the best groups of neighbouring experts, and set all others to -inf (DeepSeek-V2 and V3).

    Not to zero, as older code has it: where a correction bias makes scores negative, an expert outside of the best
    groups would come before them.

    Args:
        scores: (..., experts).
        num_groups: Number of groups, a divisor of the experts.
        top_k_groups: Groups that are kept.
        group_score: Score of a group: that of its best expert (`max`), or the sum of its best two (`top2`).

    Returns:
        Scores of the same shape.
    """
    groups = scores.reshape(*scores.shape[:-1], num_groups, -1)
    strength = mx.topk(groups, 1 if group_score == "max" else 2, axis=-1).sum(axis=-1)
    kept = (best(strength, top_k_groups)[..., None, :] == mx.arange(num_groups)[:, None]).any(axis=-1)
    return mx.where(kept[..., None], groups, -mx.inf).reshape(scores.shape)
