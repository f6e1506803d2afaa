"""An architecture as a subject: built with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from axon_compose.analysis.cost import cost
from axon_compose.analysis.measurement import Workload
from axon_compose.plan import DTYPES, Compiled, Plan, compile_source
from axon_compose.proof.bench._record import Run, Subject

__all__ = ["make", "subject"]

#: Arrays of float32 that are there at once while a random weight is made.
_COPIES: Final = 3


def subject(
    architecture: Compiled,
    workload: Workload,
    *,
    name: str | None = None,
    dtype: str = "bfloat16",
    quantize: int | None = None,
) -> Subject:
    """An architecture with random weights, to be measured.

    Args:
        architecture: What `axon_compose.load` gave, with the installed plugins.
        workload: What it will be run with.
        name: What it is called; its own name unless given.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
        quantize: Bits of quantised weights; not quantised unless given.
    """
    plan = architecture.plan()
    sheet = cost(plan, context=workload.prompt + workload.steps, dtype=dtype, batch=workload.batch, quantize=quantize)
    return Subject(
        name=name or architecture.name,
        make=f"{__name__}:make",
        arguments={"description": architecture.data, "dtype": dtype, "quantize": quantize},
        needs=sheet.contexts[0].memory_bytes + _widest(plan),
        largest=[(use.path, use.size * DTYPES[dtype]) for use in plan.uses()],
    )


def _widest(plan: Plan) -> int:
    """Bytes that the largest weight needs while it is made."""
    sizes = (prod(shape) for use in plan.uses() for shape in use.params.values())
    return _COPIES * 4 * max(sizes, default=0)


def make(arguments: Mapping[str, Any]) -> Run:
    """The other side of `subject`: build the model in this process."""
    from axon_compose.model import build, quantize
    from axon_compose.proof.bench._mlx import MLXModel

    model = build(compile_source(arguments["description"]).plan(), dtype=arguments["dtype"], allow_large=True)
    if arguments["quantize"]:
        quantize(model, arguments["quantize"])
    return MLXModel(model, model.plan.dims.vocab_size)
