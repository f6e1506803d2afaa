"""Integers that a model computes itself and a published file holds too: they have to be the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from axon_compose.checkpoints.files._safetensors import data_start, shown
from axon_compose.checkpoints.files._tensors import read_numbers
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.weights._faults import WeightFaults
from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.plan import Plan

__all__ = ["Compared", "buffers", "check_buffers"]

_INTEGERS: Final = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")


class Compared(NamedTuple):
    """A tensor and the buffer of the model that it has to equal; `rule` says so."""

    tensor: TensorHeader
    name: str
    numbers: tuple[int, ...]
    rule: str

    def misfit(self) -> str | None:
        """What its header tells that makes it another; None if it is a list of integers of the same length."""
        if self.tensor.dtype not in _INTEGERS or self.tensor.blocks is not None:
            return f"{self}: it is stored as {shown(self.tensor.dtype)}, and has to hold integers"
        if self.tensor.shape != (len(self.numbers),):
            return f"{self}: it is {list(self.tensor.shape)}, the model has {[len(self.numbers)]}"
        return None

    def difference(self) -> str | None:
        """Where its numbers differ; None if they do not. Reads the tensor.

        Raises:
            CheckpointError: AX511 the file has become shorter.
        """
        name, shape, dtype, file, start, _ = self.tensor
        start += 0 if is_gguf(file) else data_start(file)
        held = read_numbers(file, name, dtype, shape, start).tolist()
        pairs = enumerate(zip(held, self.numbers, strict=True))
        found = next(((at, one, other) for at, (one, other) in pairs if one != other), None)
        return found and f"{self}: entry {found[0]} is {found[1]}, the model computes {found[2]}"

    def __str__(self) -> str:
        return f"{shown(self.tensor.name)}, which is {self.name} by the rule `{self.rule}`"


def buffers(plan: Plan) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Full names and numbers of every buffer of a model."""
    for use in plan.uses():
        for name, numbers in use.buffers.items():
            yield f"{use.path}.{name}", numbers


def check_buffers(compared: Iterable[Compared], model: str) -> None:
    """Compare the tensors with what the model computes. Reads them; they are small.

    Raises:
        WeightMismatch: AX553 some are not the same.
        CheckpointError: AX511 a file has become shorter.
    """
    faults = WeightFaults(different=[line for each in compared if (line := each.difference())])
    faults.raise_if_any(model)
