"""Memory of a training step on several devices, each with some of the sequences.

*Replicas* (`nn.average_gradients`): every device has weights, moments and, until they are averaged, all gradients.

*Fully sharded* (`train --fully-shard`): of every matrix and table a device keeps and updates one part, vectors stay
whole. A layer's weights are gathered when it runs, and stay until the backward pass has used them, so that without
recomputation those of all layers are there at once; with segments, those of the layers that are computed again,
gathered twice. Embedding and head are whole during a step. Gradients of parts are summed in float32, whole, as MLX's
ring has no sum that scatters.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

from axon_compose.analysis.cost import TrainingCost, cost
from axon_compose.analysis.devices._collectives import all_gather, all_reduce
from axon_compose.analysis.devices._sheet import TrainingStrategy
from axon_compose.plan import DTYPES, Plan, Use

__all__ = ["training_strategies"]

#: Bytes of a number of a gradient that is summed.
_SUMMED: Final = 4


def training_strategies(
    plan: Plan, devices: int, *, context: int, dtype: str, batch: int, segment: int | None
) -> Iterator[TrainingStrategy]:
    """Both ways, see above.

    Args:
        plan: The whole model.
        devices: Number of devices.
        context: Tokens of each sequence.
        dtype: Of weights, gradients and moments.
        batch: Sequences of a step, all devices together.
        segment: As of `cost`.
    """
    each = -(-batch // devices)
    step = cost(plan, context=context, dtype=dtype, batch=each, training=True, segment=segment).contexts[0].training
    assert step is not None
    yield _replicas(step, devices, segment)
    yield _sharded(plan, step, devices, dtype, segment)


def _replicas(step: TrainingCost, devices: int, segment: int | None) -> TrainingStrategy:
    kept = step.weights if segment else 0  # a step in segments has counted its gradients among its activations
    return TrainingStrategy(
        name="replicas",
        weight_bytes=step.weights,
        optimizer_bytes=step.optimizer,
        gradient_bytes=step.weights,
        gathered_bytes=0,
        activation_bytes=step.activations + step.in_flight - kept,
        sent_per_step=all_reduce(step.weights, devices).nbytes,
    )


def _sharded(plan: Plan, step: TrainingCost, devices: int, dtype: str, segment: int | None) -> TrainingStrategy:
    parts = [_parted(use, devices, dtype) for use in plan.uses()]
    parted, whole = (sum(sizes) for sizes in zip(*parts, strict=True))
    gathered = _gathered(plan, devices, dtype, segment)
    kept = step.weights if segment else 0
    held = -(-parted // devices) + whole
    ends = sum(_parted(use, devices, dtype)[0] for use in (plan.embedding, plan.head))
    sent = all_gather(ends, devices) + all_gather(parted - ends, devices).times(2 if segment else 1)
    sent += all_reduce(parted * _SUMMED // DTYPES[dtype], devices) + all_reduce(whole, devices)
    return TrainingStrategy(
        name="fully sharded",
        weight_bytes=held,
        optimizer_bytes=2 * held,
        gradient_bytes=held,
        gathered_bytes=gathered,
        activation_bytes=step.activations + step.in_flight - kept,
        sent_per_step=sent.nbytes,
    )


def _parted(use: Use, devices: int, dtype: str) -> tuple[int, int]:
    """Bytes of a component's matrices and tables, which devices share, and of its vectors."""
    found = [0, 0]
    for name, shape in use.params.items():
        width = 4 if name in use.spec.float32 else DTYPES[dtype]
        found[devices == 1 or len(shape) < 2] += prod(shape) * width
    return found[0], found[1]


def _gathered(plan: Plan, devices: int, dtype: str, segment: int | None) -> int:
    """Bytes of whole weights that are there at once: of all, or of a segment's layers and the one before."""
    sizes = [sum(_parted(use, devices, dtype)[0] for use in layer.uses()) for layer in plan.layers]
    total = sum(_parted(use, devices, dtype)[0] for use in plan.uses())
    if not segment:
        return total
    return total - sum(sizes) + min(segment + 1, len(sizes)) * max(sizes)
