"""The tensors of an edited model: what each is made from, and the type that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from axon_compose.checkpoints.weights import LoadPlan
from axon_compose.plan import DTYPES, Plan, kept_in_float32
from axon_compose.surgery._making import Exactness, Kind, Made, Making, trace

__all__ = ["USUAL", "Share", "Step", "dtypes_of", "steps_of", "usual_dtype"]

#: The type that weights are counted in where there are none yet.
USUAL: Final = "bfloat16"
_FLOATS: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor of the new model.

    Attributes:
        name: Its full name in the plan of the new model.
        shape: Its shape.
        dtype: The type that it will have.
        sources: Parameters of the source that it is made from, by their full names.
        kind: `kept` as it is, `converted` from others, or `new`.
        init: What the edit calls the way; empty where it is kept.
        rule: How, in words; empty where it is kept.
        exactness: `same` bytes, `exact` as far as the claim of the transfer goes, `near`, or `random`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sources: tuple[str, ...]
    kind: Kind
    init: str
    rule: str
    exactness: Exactness

    @property
    def parameters(self) -> int:
        """Number of its numbers."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in the new folder."""
        return self.parameters * DTYPES[self.dtype]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "sources": list(self.sources),
            "kind": self.kind,
            "init": self.init,
            "rule": self.rule,
            "exactness": self.exactness,
            "parameters": self.parameters,
            "bytes": self.nbytes,
        }


@dataclass(frozen=True, slots=True)
class Share:
    """A sum over tensors: how many, their numbers, their bytes."""

    tensors: int
    parameters: int
    nbytes: int

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Share:
        """The sum of some steps."""
        found = list(steps)
        return cls(len(found), sum(step.parameters for step in found), sum(step.nbytes for step in found))

    def to_dict(self) -> dict[str, int]:
        """As plain data."""
        return {"tensors": self.tensors, "parameters": self.parameters, "bytes": self.nbytes}


def steps_of(plan: Plan, makings: Mapping[str, Making], before: Mapping[str, str], usual: str) -> Iterator[Step]:
    """The tensors of the new model."""
    wide = kept_in_float32(plan)
    for use in plan.uses():
        making = makings[use.path]
        for name, shape in use.params.items():
            found, full = trace(making, name), f"{use.path}.{name}"
            made = "float32" if full in wide else usual
            kind = before[found.sources[0]] if found.kind == "kept" else made
            init = making.init if isinstance(making, Made) and found.kind != "kept" else ""
            yield Step(full, shape, kind, found.sources, found.kind, init, found.rule, found.exactness)


def usual_dtype(plan: Plan, dtypes: Mapping[str, str]) -> str:
    """The type that most numbers of the source have."""
    sizes: dict[str, int] = {}
    for name, shape in plan.parameters():
        sizes[dtypes[name]] = sizes.get(dtypes[name], 0) + prod(shape)
    return max(sizes, key=lambda kind: sizes[kind])


def dtypes_of(plan: Plan, load_plan: LoadPlan | None, dtype: str | None) -> dict[str, str]:
    """The type of every parameter of the source once it is read, cast where it may be."""
    wide = kept_in_float32(plan)
    found = {name: "float32" if name in wide else dtype or USUAL for name, _ in plan.parameters()}
    for name, transfer in load_plan.parameters.items() if load_plan else ():
        if dtype is None or name in wide:
            first = transfer.sources[0]
            scales = [_FLOATS[tensor.dtype] for tensor in first.tensors if tensor.dtype in _FLOATS]
            found[name] = first.unasked or (scales[0] if scales else USUAL)
    return found
