"""What is done with a tensor on its way into the model: small steps that know their shapes and their way back.

They use nothing but methods that arrays of MLX, of NumPy and `Packed` have in common, so they run without MLX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from math import prod
from typing import Any, Protocol

__all__ = [
    "Add",
    "Integers",
    "Reshape",
    "Scale",
    "Shape",
    "Split",
    "Step",
    "StepError",
    "Transpose",
    "UnitRows",
    "cut",
    "join",
    "library",
    "stack",
    "unstack",
]

Shape = tuple[int, ...]


class StepError(Exception):
    """A step that cannot be done with an array of this shape."""


class Step(Protocol):
    """One array to one array."""

    def shape(self, shape: Shape) -> Shape:
        """Shape of the result.

        Raises:
            StepError: There is none.
        """
        ...

    def apply(self, array: Any) -> Any:
        """The result."""
        ...

    def undo(self, array: Any) -> Any:
        """The array that `apply` makes this one of."""
        ...


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same numbers in the same order under another shape."""

    before: Shape
    after: Shape

    def shape(self, shape: Shape) -> Shape:
        """`after`."""
        if prod(shape) != prod(self.after):
            raise StepError(f"{list(shape)} cannot be reshaped to {list(self.after)}")
        return self.after

    def apply(self, array: Any) -> Any:
        """Reshape to `after`."""
        return array.reshape(self.after)

    def undo(self, array: Any) -> Any:
        """Reshape to `before`."""
        return array.reshape(self.before)


@dataclass(frozen=True, slots=True)
class Transpose:
    """Axes in another order: axis `k` of the result is axis `axes[k]` of the array."""

    axes: tuple[int, ...]

    def shape(self, shape: Shape) -> Shape:
        """The extents in their new order."""
        if len(shape) != len(self.axes):
            raise StepError(f"{list(shape)} does not have {len(self.axes)} axes")
        return tuple(shape[axis] for axis in self.axes)

    def apply(self, array: Any) -> Any:
        """Permute."""
        return array.transpose(self.axes)

    def undo(self, array: Any) -> Any:
        """Undo the permutation."""
        return array.transpose(self.inverse.axes)

    @property
    def inverse(self) -> Transpose:
        """The permutation that takes this one back."""
        return Transpose(tuple(self.axes.index(axis) for axis in range(len(self.axes))))

    def moves(self, shape: Shape) -> bool:
        """Whether any element moves: axes of length 1 do not count."""
        order = [axis for axis in self.axes if shape[axis] != 1]
        return order != sorted(order)


@dataclass(frozen=True, slots=True)
class Add:
    """Adds a constant."""

    value: float

    def shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def apply(self, array: Any) -> Any:
        """Add."""
        return array + self.value

    def undo(self, array: Any) -> Any:
        """Subtract."""
        return array + -self.value


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Rows of length one, as some code makes them before each use; there is no way back to other lengths."""

    def shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def apply(self, array: Any) -> Any:
        """Divide by the lengths, computed in float32."""
        of = library(array)
        rows = array.astype(of.float32)
        return (rows / (of.sqrt((rows * rows).sum(-1, keepdims=True)) + 1e-7)).astype(array.dtype)

    def undo(self, array: Any) -> Any:
        """The array itself, of which `apply` makes no other."""
        return array


@dataclass(frozen=True, slots=True)
class Integers:
    """From integers, such as indices, to numbers in float32, which has all up to 2^24."""

    def shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def apply(self, array: Any) -> Any:
        """Numbers."""
        return array.astype(library(array).float32)

    def undo(self, array: Any) -> Any:
        """Integers of 64 bits."""
        return array.astype(library(array).int64)


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiplies by a factor, or by one per row of the first axis."""

    value: float | tuple[float, ...]

    def shape(self, shape: Shape) -> Shape:
        """Unchanged.

        Raises:
            StepError: There are more or fewer numbers than rows.
        """
        if isinstance(self.value, tuple) and shape[:1] != (len(self.value),):
            raise StepError(f"{len(self.value)} factors for the rows of {list(shape)}")
        return shape

    def apply(self, array: Any) -> Any:
        """Multiply."""
        if isinstance(self.value, tuple):
            return array * _column(self.value, array)
        return array * self.value

    def undo(self, array: Any) -> Any:
        """Divide."""
        if isinstance(self.value, tuple):
            return array * _column([1 / value for value in self.value], array)
        return array * (1 / self.value)


@dataclass(frozen=True, slots=True)
class Split:
    """An axis is `groups` equal parts one after the other, and each of those is divided among targets.

    A target gets one stretch of each group, or several stretches in a row: then all groups' first stretches come before
    all their second ones.

    Attributes:
        axis: The axis.
        groups: Number of groups.
        parts: Lengths of the stretches of each target, in the order of a group.
    """

    axis: int
    groups: int
    parts: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Lengths of all stretches of a group, in order."""
        return [size for part in self.parts for size in part]

    def shapes(self, shape: Shape) -> list[Shape]:
        """Shapes of the pieces.

        Raises:
            StepError: The sizes are not those of the axis.
        """
        if self.axis >= len(shape):
            raise StepError(f"{list(shape)} has no axis {self.axis}")
        if self.groups * sum(self.sizes) != shape[self.axis]:
            parts = " + ".join(map(str, self.sizes))
            whole = f"{self.groups} · ({parts})" if self.groups > 1 else parts
            raise StepError(f"axis {self.axis} of {list(shape)} is not {whole}")
        return [(*shape[: self.axis], self.groups * sum(part), *shape[self.axis + 1 :]) for part in self.parts]

    def apply(self, array: Any) -> list[Any]:
        """The pieces."""
        shape = tuple(array.shape)
        before, after = shape[: self.axis], shape[self.axis + 1 :]
        grouped = array if self.groups == 1 else array.reshape((*before, self.groups, sum(self.sizes), *after))
        axis = self.axis + (self.groups > 1)
        stretches = iter(cut(grouped, axis, self.sizes))
        pieces = []
        for part in self.parts:
            own = [next(stretches) for _ in part]
            if self.groups > 1:
                own = [s.reshape((*before, self.groups * size, *after)) for s, size in zip(own, part, strict=True)]
            pieces.append(own[0] if len(own) == 1 else join(own, self.axis))
        return pieces

    def undo(self, pieces: Sequence[Any]) -> Any:
        """The array with these pieces."""
        shape = tuple(pieces[0].shape)
        before, after = shape[: self.axis], shape[self.axis + 1 :]
        stretches = [
            stretch
            for piece, part in zip(pieces, self.parts, strict=True)
            for stretch in cut(piece, self.axis, [self.groups * size for size in part])
        ]
        if self.groups == 1:
            return join(stretches, self.axis)
        grouped = [s.reshape((*before, self.groups, n, *after)) for s, n in zip(stretches, self.sizes, strict=True)]
        return join(grouped, self.axis + 1).reshape((*before, self.groups * sum(self.sizes), *after))


def cut(array: Any, axis: int, sizes: Sequence[int]) -> list[Any]:
    """Stretches of an axis, in order."""
    if len(sizes) == 1:
        return [array]
    ends = list(accumulate(sizes))
    return [array[_along(axis, end - size, end)] for size, end in zip(sizes, ends, strict=True)]


def _along(axis: int, start: int, end: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(start, end))


def stack(arrays: Sequence[Any]) -> Any:
    """Arrays of one shape on a new first axis."""
    return arrays[0].stack(arrays) if hasattr(arrays[0], "stack") else library(arrays[0]).stack(list(arrays))


def unstack(array: Any) -> list[Any]:
    """The arrays along the first axis."""
    return [array[index] for index in range(array.shape[0])]


def join(arrays: Sequence[Any], axis: int) -> Any:
    """Arrays one after the other along an axis."""
    own = next((array for array in arrays if hasattr(array, "join")), None)
    if own is not None:
        return own.join(arrays, axis)
    return library(arrays[0]).concatenate(list(arrays), axis=axis)


def _column(values: Sequence[float], array: Any) -> Any:
    """One number for each row of an array, in the array's type."""
    like = getattr(array, "scales", array)
    column = library(like).array(list(values)).astype(like.dtype)
    return column.reshape((-1, *[1] * (len(array.shape) - 1)))


def library(array: Any) -> Any:
    """The module whose functions work on this array: `mlx.core` or `numpy`."""
    root = type(array).__module__.partition(".")[0]
    return import_module("mlx.core" if root == "mlx" else root)
