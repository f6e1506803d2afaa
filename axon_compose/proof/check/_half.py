"""float16: half the bits, and nothing above 65504."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import mlx.core as mx

from axon_compose.plan import Plan
from axon_compose.proof.check._compare import at_most
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._storage import leaves
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import State

__all__ = ["half"]

#: More than float16 can hold.
BEYOND: Final = 1e5


def half(subject: Subject) -> Truth:
    """float16 stays finite, and states declared float32 represent values that overflow float16."""
    model = subject.fresh("float16")
    tokens = subject.tokens(2, 2 * subject.window + 3)
    cache = model.make_cache()
    outputs = {"logits": model(tokens), "logits with a cache": model(tokens, cache)}
    faults = [f"{where}: {value.dtype}" for where, value in outputs.items() if value.dtype != mx.float16]
    faults += [f"{where}: not finite" for where, value in outputs.items() if not _finite(value)]
    wide = sum(1 for _ in _wide(subject.plan, cache))
    detail = f"{wide} states above 65504" if wide else "no float32 states"
    if wide and not faults:
        faults = list(_overflows(subject, model))
    claim = "float16 stays finite; float32 states keep their dtype"
    return at_most("float16", claim, len(faults), 0, "; ".join(faults[:5]) or detail)


def _overflows(subject: Subject, model: Any) -> Iterator[str]:
    """States that become infinite when a part of them is already beyond float16.

    One at a time, and in one pass each: what is read out of such a state may rightly be too much for float16.
    """
    for number in range(sum(1 for _ in _wide(subject.plan, model.make_cache()))):
        for length in (1, 5):
            cache = model.make_cache()
            model(subject.tokens(2, 4), cache)
            where, leaf, index = list(_wide(subject.plan, cache))[number]
            first = mx.arange(leaf[index].shape[-1]) == 0
            leaf[index] = mx.where(first, BEYOND, leaf[index])
            model(subject.tokens(2, length, salt=3), cache)
            if not _finite(leaf[index]):
                yield f"{where} is not finite after {length} more tokens"


def _wide(plan: Plan, cache: list[Any]) -> Iterator[tuple[str, Any, int]]:
    """States that are declared float32: where, the cache, and which of its arrays."""
    for where, spec, leaf in leaves(plan, cache):
        if isinstance(spec, State):
            for index, array in enumerate(spec.arrays):
                if array.dtype == "float32":
                    yield f"`{array.name}` in the {where}", leaf, index


def _finite(value: mx.array) -> bool:
    return bool(mx.isfinite(value).all().item())
