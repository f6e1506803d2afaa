"""What a plan adds up to: parameters, bytes and capabilities, counted from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

from axon_compose.plan._plan import Plan
from axon_compose.record import record
from axon_compose.registry import KV, State, cache_leaves

__all__ = [
    "DTYPES",
    "Capabilities",
    "active_parameters",
    "cache_nbytes",
    "capabilities",
    "kept_in_float32",
    "number_widths",
    "running_nbytes",
    "total_parameters",
    "weight_nbytes",
]

#: Element sizes of the dtypes that a model can be built in.
DTYPES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}


def total_parameters(plan: Plan) -> int:
    """Number of parameters; shared and tied weights count once."""
    return sum(use.size for use in plan.uses())


def active_parameters(plan: Plan) -> int:
    """Parameters that one token passes through; shared weights count once."""
    return sum(use.active for use in plan.uses())


def number_widths(plan: Plan, dtype: str) -> dict[str, int]:
    """Bytes of a number of every parameter in a model of `dtype`: some parameters stay float32."""
    kept = kept_in_float32(plan)
    return {name: 4 if name in kept else DTYPES[dtype] for name, _ in plan.parameters()}


def kept_in_float32(plan: Plan) -> frozenset[str]:
    """Full names of the parameters that stay float32 whatever the model is built in."""
    return frozenset(f"{use.path}.{name}" for use in plan.uses() for name in use.spec.float32)


def weight_nbytes(plan: Plan, dtype: str) -> int:
    """Bytes of all weights in `dtype`, parameters that stay float32 included as such."""
    widths = number_widths(plan, dtype)
    return sum(prod(shape) * widths[name] for name, shape in plan.parameters())


#: Stretches in float32 of matrices of other types that are in memory at once, on the CPU.
_STRETCHES: Final = 32 << 20


def running_nbytes(plan: Plan, widths: Mapping[str, int]) -> int:
    """Bytes that the first run takes besides the weights, long prompts and caches aside.

    On the CPU a float32 matrix is there twice while it is laid out anew. Experts of other types are multiplied in
    float32, all of a component, about half of them in both orders; other matrices too, in stretches.

    Args:
        plan: The model.
        widths: Parameter to the bytes of one of its numbers, packed ones left out.
    """
    most = narrow = 0
    for use in plan.uses():
        found = [(shape, widths.get(f"{use.path}.{name}")) for name, shape in use.params.items()]
        experts = sum(6 * prod(shape) for shape, width in found if width and width < 4 and len(shape) > 2)
        most = max(most, experts, *(4 * prod(shape) for shape, width in found if width == 4))
        narrow += sum(4 * prod(shape) for shape, width in found if width != 4 and len(shape) == 2)
    return most + min(narrow, _STRETCHES)


def cache_nbytes(plan: Plan, tokens: int, dtype: str = "bfloat16") -> int:
    """Bytes of all caches for one sequence of `tokens` tokens."""
    return sum(slot.nbytes(tokens, dtype) for slot in plan.slots)


#: Numbers that share a scale in quantised keys and values: the default of the mlx_lm commands, and what is smaller.
_KV_GROUPS: Final = (64, 32)


@record
class Capabilities:
    """What the caches of a model allow, known before it is built.

    Attributes:
        trimmable: The cache can be trimmed: `yes`, `no`, or `within the window`.
        batchable: Sequences of unequal length can run in one batch.
        quantizable: KV quantisation (`--kv-bits`) is supported: `yes`, `no` or `partly`; with the group size where the
            default of 64 does not divide keys and values.
        speculative: Speculative decoding is possible.
        constant_memory: The caches stop growing with the context.
    """

    trimmable: str
    batchable: bool
    quantizable: str
    speculative: bool
    constant_memory: bool


def capabilities(plan: Plan) -> Capabilities:
    """Derive what a model can do from its caches."""
    leaves = [leaf for slot in plan.slots for leaf in cache_leaves(slot)]
    states = any(isinstance(leaf, State) for leaf in leaves)
    windows = [leaf for leaf in leaves if isinstance(leaf, KV) and leaf.window is not None]
    grows = [leaf for leaf in leaves if isinstance(leaf, KV) and leaf.window is None]
    trimmable = "no" if states else "within the window" if windows else "yes"
    widths = {width for leaf in grows for width in leaf.widths}
    group = next((size for size in _KV_GROUPS if not any(width % size for width in widths)), None)
    quantizable = "yes" if all(isinstance(slot, KV) for slot in plan.slots) else "partly"
    if windows or not grows or group is None:
        quantizable = "no"
    elif group != _KV_GROUPS[0]:
        quantizable += f", with `--kv-group-size {group}`"
    return Capabilities(
        trimmable=trimmable,
        batchable=True,
        quantizable=quantizable,
        speculative=trimmable == "yes" and len(plan.slots) == len(plan.layers),
        constant_memory=not grows,
    )
