"""A tensor of a checkpoint as rules see it, whatever it is stored as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.checkpoints.weights._packed import Packing
from axon_compose.checkpoints.weights._steps import Shape

__all__ = ["Form", "Source"]


@dataclass(frozen=True, slots=True)
class Form:
    """A shape that a source may have, and how it is packed if it is."""

    shape: Shape
    packing: Packing | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor under the name that rules see, and the tensors of the files that it is stored in.

    A plain tensor is the base case; the subclasses decode.
    """

    #: Whether its numbers are those of the files, and nothing is computed.
    as_stored: ClassVar[bool] = True

    #: Type of what is computed where none is asked for; None for that of the result.
    unasked: ClassVar[str | None] = None

    name: str
    tensors: tuple[TensorHeader, ...]

    @property
    def by_rows(self) -> bool:
        """Whether `read` makes rows of it out of the same rows of its tensors; what decodes says so itself."""
        return type(self) is Source

    def forms(self) -> list[Form]:
        """What it can be; the shape of the parameter decides if there are several."""
        return [Form(self.tensors[0].shape)]

    def members(self) -> tuple[TensorHeader, ...]:
        """The tensors that belong to it: those that it is read from, and what says nothing more."""
        return self.tensors

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """The tensor out of the arrays of the files."""
        return arrays[0]
