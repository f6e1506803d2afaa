"""How tensors of a checkpoint become parameters: the steps that a rule asks for, with shapes known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

from axon_compose.checkpoints.weights._llama_cpp_steps import NegativeExp, PairsToHalves, TilesToGroups
from axon_compose.checkpoints.weights._packed import Packing, to_packed
from axon_compose.checkpoints.weights._rules import Found, RuleBook
from axon_compose.checkpoints.weights._steps import (
    Add,
    Integers,
    Reshape,
    Scale,
    Shape,
    Split,
    Step,
    StepError,
    Transpose,
    UnitRows,
    stack,
    unstack,
)
from axon_compose.checkpoints.weights._storage import Form, Source

__all__ = ["Output", "Transfer", "in_parts", "make_transfer", "transposes"]

#: Tensors that one parameter may lie in.
_MOST_PARTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Output:
    """One parameter that a transfer makes.

    Attributes:
        parameter: Its full name.
        shape: Its shape.
        steps: What its part of the split goes through.
        packing: How it is packed if it comes quantised; else None.
    """

    parameter: str
    shape: Shape
    steps: tuple[Step, ...] = ()
    packing: Packing | None = None

    def packed_as(self, packing: Packing | None) -> Output:
        """The same, packed in this way."""
        return replace(self, packing=packing)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Tensors that become parameters together.

    Attributes:
        rule: Pattern of the rule.
        sources: One tensor, or those that are stacked or joined, in order.
        form: Shape and packing of each of them; of those that are joined, of all together.
        stacked: Whether they become one on a new first axis.
        joined: How they are joined, as the division that takes them apart again; None if they are not.
        steps: What is done next.
        split: How it is divided, if it is.
        outputs: One, or one for each part of the split: None where the model has no place for it.
    """

    rule: str
    sources: tuple[Source, ...]
    form: Form
    stacked: bool
    steps: tuple[Step, ...]
    split: Split | None
    outputs: tuple[Output | None, ...]
    joined: Split | None = None

    @property
    def plain(self) -> bool:
        """Whether the parameter is the tensor of the file as it is."""
        return self.direct and all(source.as_stored for source in self.sources)

    @property
    def direct(self) -> bool:
        """Whether the parameter has the numbers of one tensor in their order, whatever they are stored as."""
        changed = self.stacked or self.joined or self.steps or self.split
        return not (changed or self.outputs[0] is None or self.outputs[0].steps)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors as they are stored."""
        return sum(tensor.nbytes for source in self.sources for tensor in source.tensors)

    @property
    def computes(self) -> bool:
        """Whether values change, not only their positions."""
        return any(isinstance(step, Add | Scale | NegativeExp | UnitRows) for step in self.steps)

    def forms(self) -> list[Form]:
        """Shape and packing of each source."""
        if self.joined is None:
            return [self.form] * len(self.sources)
        return [replace(self.form, shape=shape) for shape in self.joined.shapes(self.form.shape)]

    def with_sources(self, sources: Sequence[Source]) -> Transfer:
        """The same with other sources."""
        return replace(self, sources=tuple(sources))

    def with_outputs(self, outputs: tuple[Output | None, ...]) -> Transfer:
        """The same with other outputs."""
        return replace(self, outputs=outputs)

    def shapes(self) -> list[Shape]:
        """Shapes of the parts, their own steps included.

        Raises:
            StepError: A step does not fit.
        """
        shape = (len(self.sources), *self.form.shape) if self.stacked else self.form.shape
        for step in self.steps:
            shape = step.shape(shape)
        shapes = self.split.shapes(shape) if self.split else [shape]
        for index, output in enumerate(self.outputs):
            for step in output.steps if output else ():
                shapes[index] = step.shape(shapes[index])
        return shapes

    def apply(self, values: Sequence[Any]) -> Iterator[tuple[Output, Any]]:
        """The parameters out of the tensors of the sources."""
        array = stack(values) if self.stacked else self.joined.undo(values) if self.joined else values[0]
        for step in self.steps:
            array = step.apply(array)
        pieces = self.split.apply(array) if self.split else [array]
        del array
        for output, piece in zip(self.outputs, pieces, strict=True):
            if output is None:
                continue
            for step in output.steps:
                piece = step.apply(piece)
            yield output, to_packed(piece, output.packing) if output.packing else piece

    def undo(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The tensors of the sources out of the parameters; every part of a split must be there."""
        pieces = []
        for output in self.outputs:
            assert output is not None
            piece = parameters[output.parameter]
            for step in reversed(output.steps):
                piece = step.undo(piece)
            pieces.append(piece)
        array = self.split.undo(pieces) if self.split else pieces[0]
        for step in reversed(self.steps):
            array = step.undo(array)
        if self.joined:
            return self.joined.apply(array)
        return unstack(array) if self.stacked else [array]


def make_transfer(
    book: RuleBook,
    found: Found,
    sources: Sequence[Source],
    form: Form,
    outputs: Sequence[tuple[str, Shape] | None],
    moved: bool = True,
) -> Transfer:
    """Resolve the rule for these tensors.

    Args:
        book: Computes the rule's formulas.
        found: The rule and its captures.
        sources: One tensor, or those that are stacked or joined.
        form: What each of them is; what they are together if they are joined, or parts of one axis.
        outputs: Name and shape of the parameter for each target, None where the model has none.
        moved: Do what `reshape` and `transpose` say; false for tensors that are laid out already.

    Raises:
        StepError: A step does not fit the shape.
        CheckpointError: AX556 a formula gives no usable value.
    """
    rule, captures = found.rule, found.captures
    written = rule.written
    stacked = written.stack is not None and written.parts is None
    if written.parts is None:
        joined = _division(book, found, [[size] for size in written.members.values()], form.shape)
    else:
        joined = in_parts(form.shape, len(sources))
    shape = (len(sources), *form.shape) if stacked else form.shape
    steps: list[Step] = []
    if moved and written.reshape and (len(form.shape) > 1 or not found.rest):
        after = [book.extent(rule, extent, captures, rest=True) for extent in written.reshape]
        new = _filled(shape, after)
        steps += [Reshape(shape, new)] if new != shape else []
    shape = steps[-1].shape(shape) if steps else shape
    if moved:
        steps += transposes(written.transpose, len(shape))
        shape = steps[-1].shape(shape) if steps else shape
    if written.add is not None:
        steps.append(Add(book.number(rule, written.add, captures)))
    if written.scale is not None:
        steps.append(Scale(book.factor(rule, written.scale, captures)))
    if written.pairs_to_halves is not None:
        steps.append(PairsToHalves(book.extent(rule, written.pairs_to_halves, captures)))
    if written.tiles_to_groups is not None:
        extents = [book.extent(rule, extent, captures) for extent in written.tiles_to_groups]
        steps.append(TilesToGroups(extents[0], extents[1], extents[2], written.axis))
        steps[-1].shape(shape)
    steps += [NegativeExp()] if written.negative_exp else []
    steps += [UnitRows()] if written.unit_rows else []
    steps += [Integers()] if written.integers else []
    parts = list((written.split or {}).values())
    split = _division(book, found, [part.extents for part in parts], shape)
    own = [transposes(part.transpose, len(shape)) if moved else [] for part in parts] or [[]]
    made = tuple(
        None if output is None else _output(*output, tuple(part_steps), form.packing)
        for output, part_steps in zip(outputs, own, strict=True)
    )
    return Transfer(str(rule), tuple(sources), form, stacked, tuple(steps), split, made, joined)


def in_parts(shape: Shape, count: int) -> Split:
    """The first axis in `count` parts or fewer, of equal lengths but the last, as `torch.chunk` cuts.

    Raises:
        StepError: There is no such axis, or more parts than anybody would write.
    """
    if not shape:
        raise StepError("a scalar has no parts")
    if count > _MOST_PARTS:
        raise StepError(f"{count} parts are more than {_MOST_PARTS:,}")
    each = max(1, -(-shape[0] // count))
    lengths = [min(each, shape[0] - start) for start in range(0, shape[0], each)]
    return Split(0, 1, tuple((length,) for length in lengths))


def _division(book: RuleBook, found: Found, parts: Sequence[Sequence[Any]], shape: Shape) -> Split | None:
    """How an axis is divided into parts of these sizes, or into equal ones where no size is given.

    Raises:
        StepError: The axis cannot be divided into equal parts.
    """
    if not parts:
        return None
    rule, axis = found.rule, found.rule.written.axis
    groups = book.extent(rule, rule.written.groups, found.captures)
    if any(size is not None for part in parts for size in part):
        sizes = tuple(tuple(n for size in part for n in book.extents(rule, size, found.captures)) for part in parts)
        return Split(axis, groups, sizes)
    if axis >= len(shape) or shape[axis] % (groups * len(parts)):
        raise StepError(f"axis {axis} of {list(shape)} is not {groups * len(parts)} equal parts")
    return Split(axis, groups, ((shape[axis] // (groups * len(parts)),),) * len(parts))


def _output(parameter: str, shape: Shape, steps: tuple[Step, ...], packing: Packing | None) -> Output:
    fits = packing is not None and parameter.endswith(".weight") and packing.fits(shape)
    return Output(parameter, shape, steps, packing if fits else None)


def _filled(shape: Shape, after: Sequence[int]) -> Shape:
    """The new shape with a number in place of -1."""
    known = prod(extent for extent in after if extent != -1)
    if -1 not in after or prod(shape) % known:
        filled = tuple(after)
    else:
        filled = tuple(prod(shape) // known if extent == -1 else extent for extent in after)
    if prod(filled) != prod(shape):
        raise StepError(f"{list(shape)} cannot be reshaped to {list(after)}")
    return filled


def transposes(written: bool | list[int], axes: int) -> list[Transpose]:
    """The permutation that a rule asks for, of what has that many axes."""
    if isinstance(written, list):
        return [Transpose(tuple(written))] if len(written) == axes else []
    if not written or axes < 2:
        return []
    return [Transpose((*range(axes - 2), axes - 1, axes - 2))]
