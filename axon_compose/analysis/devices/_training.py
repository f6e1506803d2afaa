"""Memory of a training step on several devices, each with some of the sequences.

*Replicas* (`nn.average_gradients`): every device has weights, moments and, until they are averaged, all gradients.

*Fully sharded* (`nn.fully_shard`): of every parameter whose first axis divides, a device keeps and updates one part.
The whole is gathered for the forward pass, and stays until the backward pass has used it, so that without recomputation
the weights of all layers are there at once; with segments, those of the layers that are computed again, gathered twice.
Gradients are summed and scattered as they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from axon_compose.analysis.cost import TrainingCost, cost
from axon_compose.analysis.devices._collectives import all_gather, all_reduce, reduce_scatter
from axon_compose.analysis.devices._sheet import TrainingStrategy
from axon_compose.plan import DTYPES, Plan, Use

__all__ = ["training_strategies"]


def training_strategies(
    plan: Plan, devices: int, *, context: int, dtype: str, batch: int, segment: int | None, memory: int | None
) -> Iterator[TrainingStrategy]:
    """Both ways, see above.

    Args:
        plan: The whole model.
        devices: Number of devices.
        context: Tokens of each sequence.
        dtype: Of weights, gradients and moments.
        batch: Sequences of a step, all devices together.
        segment: As of `cost`.
        memory: Bytes of a device, or None.
    """
    each = -(-batch // devices)
    step = cost(plan, context=context, dtype=dtype, batch=each, training=True, segment=segment).contexts[0].training
    assert step is not None
    yield _told(_replicas(step, devices, segment), memory)
    yield _told(_sharded(plan, step, devices, dtype, segment), memory)


def _told(found: TrainingStrategy, memory: int | None) -> TrainingStrategy:
    fits = None if memory is None else found.memory_bytes <= memory
    return TrainingStrategy(**{**vars(found), "fits": fits})


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
    held = parted // devices + whole
    sent = all_gather(parted, devices).times(2 if segment else 1)
    sent += reduce_scatter(parted, devices) + all_reduce(whole, devices)
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
    """Bytes of a component's parameters whose first axis divides, and of the others."""
    found = [0, 0]
    for name, shape in use.params.items():
        width = 4 if name in use.spec.float32 else DTYPES[dtype]
        found[not shape or shape[0] % devices != 0] += prod(shape) * width
    return found[0], found[1]


def _gathered(plan: Plan, devices: int, dtype: str, segment: int | None) -> int:
    """Bytes of whole weights that are there at once: of all, or of a segment's layers and the one before."""
    sizes = [sum(_parted(use, devices, dtype)[0] for use in layer.uses()) for layer in plan.layers]
    total = sum(_parted(use, devices, dtype)[0] for use in plan.uses())
    if not segment:
        return total
    return total - sum(sizes) + min(segment + 1, len(sizes)) * max(sizes)
