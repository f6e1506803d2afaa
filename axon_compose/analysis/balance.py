"""The layers of a model divided over devices, balanced by what they weigh and compute."""

from __future__ import annotations

from typing import Final

from axon_compose.analysis.cost import BITS, Answers, Storage, cost
from axon_compose.devices import beside_embedding, layer_loads, stages
from axon_compose.plan import DTYPES, Plan

__all__ = ["CONTEXT", "balanced_stages"]

#: Tokens of the caches that layers are weighed with.
CONTEXT: Final = 4096


def balanced_stages(
    plan: Plan, size: int, *, dtype: str | None = None, bits: int | None = None, context: int = CONTEXT
) -> tuple[range, ...]:
    """The layers of each stage: see `axon_compose.devices.stages`.

    The embedding counts for the first stage, which alone has it, and so does a head that reads its table; any other
    head counts for the last stage.

    Args:
        plan: The model.
        size: Number of stages.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`; any other counts as `bfloat16`.
        bits: Of quantised weights; any number that weights are not quantised to counts as none.
        context: Tokens of a sequence.

    Raises:
        Refusal: `AX990`, there are fewer layers than stages.
    """
    storage = Storage(dtype if dtype in DTYPES else "bfloat16", bits if bits in BITS else None)
    sheet = cost(plan, context=context, dtype=storage.dtype, quantize=storage.bits)
    held = [layer.weight_bytes + layer.cache_bytes[0] for layer in sheet.layers]
    operations = [layer.decode_flops[0] for layer in sheet.layers]
    head, scored = 0 if beside_embedding(plan) else -1, Answers().flops(plan.head, 1, context)
    held[0] += storage.nbytes(plan.embedding)
    held[head] += storage.nbytes(plan.head)
    if (known := operations[head]) is not None and scored is not None:
        operations[head] = known + scored
    return stages(plan, size, layer_loads(held, operations))
