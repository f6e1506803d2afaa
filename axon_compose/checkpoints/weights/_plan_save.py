"""The inverse of the rules: every parameter of a model to the tensors of a published checkpoint.

For each parameter the rules that could have made it are tried in the order in which they hold. One is right if the name
that it gives meets the same rule again, and if all of its targets are in the model. In the end the whole is planned
forwards, so that what is written is known to read back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files import CheckpointError, TensorSpec
from axon_compose.checkpoints.files._safetensors import listing
from axon_compose.checkpoints.weights._fit import difference
from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.checkpoints.weights._packed import Packed, Packing, packings, to_packed
from axon_compose.checkpoints.weights._plan_load import plan_load
from axon_compose.checkpoints.weights._rules import Found, Origin, RuleBook
from axon_compose.checkpoints.weights._steps import Shape, StepError
from axon_compose.checkpoints.weights._storage import Form, Source
from axon_compose.checkpoints.weights._transfer import Transfer, in_parts, make_transfer, transposes
from axon_compose.language.document import HuggingFace, Layout, WeightRule
from axon_compose.plan import Plan

__all__ = ["SavePlan", "name_kind", "plan_save"]

#: Values tried for a capture that only the condition of a rule determines, such as the number of a layer.
_TRIED: Final = 1024
_NOWHERE: Final = Path()
_INDEX: Final = re.compile(r"(?<![^.])(?:[0-9]+|<[^>]*>)(?![^.])")


@dataclass(frozen=True)
class SavePlan:
    """How the weights of a model become the tensors of a checkpoint.

    Attributes:
        transfers: The transfers that would read them, each done backwards.
        specs: The tensors that are written, in order.
        layout: Whose layout it is.
    """

    transfers: tuple[Transfer, ...]
    specs: tuple[TensorSpec, ...]
    layout: Layout

    def tensors(self, arrays: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Name and array of every tensor in the order of `specs`; `arrays` is emptied on the way.

        Args:
            arrays: Parameter to array; of quantised ones `.weight`, `.scales` and `.biases`.
        """
        for transfer in self.transfers:
            parameters = {o.parameter: _taken(arrays, o.parameter, o.packing) for o in transfer.outputs if o}
            values = transfer.undo(parameters)
            del parameters
            for index, source in enumerate(transfer.sources):
                value, values[index] = values[index], None
                members = [value]
                if transfer.form.packing:
                    members = list(to_packed(value, transfer.form.packing).members.values())
                elif isinstance(value, Packed):
                    members = [value.dense()]
                del value
                yield from ((header.name, member) for header, member in zip(source.tensors, members, strict=True))


def _taken(arrays: dict[str, Any], parameter: str, packing: Packing | None) -> Any:
    if packing is None:
        return arrays.pop(parameter)
    base = parameter.removesuffix("weight")
    return Packed(arrays.pop(parameter), arrays.pop(f"{base}scales"), arrays.pop(f"{base}biases", None), packing)


def plan_save(
    plan: Plan,
    section: HuggingFace,
    dims: Mapping[str, Any],
    specs: Sequence[TensorSpec],
    layout: Layout,
    *,
    known: Collection[str] = (),
) -> SavePlan:
    """Decide which tensors the parameters of a model become.

    Args:
        plan: The model.
        section: The rules.
        dims: What the rules' formulas know.
        specs: Every parameter as it is, `.scales` and `.biases` of quantised ones too (`checkpoint.tensor_specs`).
        layout: Whose layout is wanted.
        known: Names of the checkpoint that the model came from, each as `name_kind` gives it. Of several rules the one
            that gives such a name is taken.

    Raises:
        CheckpointError: AX556 a formula has no value; AX558 no rule gives a parameter a name that reads back.
    """
    saver = _Saver(dict(plan.parameters()), section, dims, {spec.name: spec for spec in specs}, layout, known)
    saver.all()
    save_plan = SavePlan(tuple(saver.transfers), tuple(saver.specs()), layout)
    _check(plan, section, dims, save_plan)
    return save_plan


def _check(plan: Plan, section: HuggingFace, dims: Mapping[str, Any], save_plan: SavePlan) -> None:
    headers = [tensor for t in save_plan.transfers for source in t.sources for tensor in source.tensors]
    twice = [name for name, count in Counter(header.name for header in headers).items() if count > 1]
    if twice:
        raise _refused([f"{name} twice" for name in twice])
    read = plan_load(plan, section, dims, {header.name: header for header in headers}, save_plan.layout).parameters
    odd = [
        name
        for transfer in save_plan.transfers
        for name in (output.parameter for output in transfer.outputs if output)
        if [s.name for s in read[name].sources] != [s.name for s in transfer.sources]
        or read[name].steps != transfer.steps
    ]
    if odd:
        raise _refused([f"{name}, which would not read back as written" for name in odd])


def _refused(lines: list[str]) -> CheckpointError:
    hint = "each parameter needs a rule whose target determines the tensor's name"
    return CheckpointError(
        "AX558", "the rules cannot be inverted to write a checkpoint", hint, listing("without a tensor", lines)
    )


class _Saver:
    """Goes through the parameters once."""

    def __init__(
        self,
        parameters: dict[str, Shape],
        section: HuggingFace,
        dims: Mapping[str, Any],
        found: Mapping[str, TensorSpec],
        layout: Layout,
        known: Collection[str],
    ) -> None:
        self.parameters = parameters
        self.known = known
        self.found = found
        self.layout = layout
        self.book = RuleBook(section, dims, layout)
        self.transfers: list[Transfer] = []
        self.made: set[str] = set()
        self.packed = {name: packing for name in parameters if (packing := self.packing(name))}

    def all(self) -> None:
        """Find the transfer of every parameter."""
        lost = []
        for name in self.parameters:
            if name in self.made:
                continue
            transfer = self.backwards(name)
            if transfer is None:
                lost.append(name)
                continue
            self.transfers.append(transfer)
            self.made.update(output.parameter for output in transfer.outputs if output)
        if lost:
            raise _refused(lost)

    def packing(self, name: str) -> Packing | None:
        """How a parameter is packed, by the shapes of its members."""
        base = name.removesuffix(".weight")
        scales = self.found.get(f"{base}.scales") if base != name else None
        if scales is None:
            return None
        words = self.found[name].shape[-1]
        known = packings(words, scales.shape[-1], f"{base}.biases" in self.found)
        return next((packing for length, packing in known if length == self.parameters[name][-1]), None)

    def backwards(self, name: str) -> Transfer | None:
        """The transfer that would read this parameter.

        For `mlx` the rules that neither stack nor move come first, since mlx-lm keeps its weights as modules have them;
        then the others without their moves, as a checkpoint of that layout is read, unless they are for it alone.
        """
        origins = list(self.book.origins(name))
        if self.known:
            origins.sort(key=lambda origin: name_kind(origin.source()) not in self.known)
        if self.layout == "huggingface":
            return self.first(name, origins, moved=True)
        plain = [origin for origin in origins if not _rearranges(origin.rule.written)]
        shared = [origin for origin in origins if origin.rule.written.layout is None]
        return (
            self.first(name, plain, moved=False)
            or self.first(name, shared, moved=False)
            or self.first(name, origins, moved=True)
        )

    def first(self, name: str, origins: Sequence[Origin], moved: bool) -> Transfer | None:
        """The first rule that can be followed backwards."""
        for origin in origins:
            found = self.meet(origin)
            if found is None:
                continue
            names = [found.target(index, self.parameters) for index in range(len(found.rule.targets))]
            if names[origin.part] != name or None in names or not self.made.isdisjoint(names):
                continue
            try:
                return self.transfer(found, [target for target in names if target is not None], moved)
            except StepError:
                continue
        return None

    def meet(self, origin: Origin) -> Found | None:
        """The rule and its captures, if the tensor's name would meet that rule again."""
        written = origin.rule.written
        unknown = origin.rule.pattern.names - origin.captures.keys() - {written.gathers}
        if len(unknown) > 1:
            return None
        first = {written.gathers: next(iter(written.members), "0")} if written.gathers else {}
        for number in range(_TRIED if unknown else 1):
            captures = {**origin.captures, **first, **dict.fromkeys(unknown, str(number))}
            if self.book.holds(origin.rule, captures):
                found = Found(origin.rule, captures, origin.rest)
                met = self.book.find(_source_name(found))
                return found if met and met.rule is origin.rule else None
        return None

    def transfer(self, found: Found, names: Sequence[str], moved: bool) -> Transfer:
        """The transfer forwards, with the sources that its undoing makes.

        Raises:
            StepError: The parameters cannot be joined or moved back.
        """
        count, shape = self.source_shape(found, names, moved)
        if moved and found.rule.written.if_needed and (count, shape) == self.source_shape(found, names, moved=False):
            moved = False  # a tensor of this shape is read as it is
        packed = {self.packed.get(name) for name in names}
        packing = packed.pop() if len(packed) == 1 else None
        form = Form(shape, packing if packing and packing.fits(shape) else None)
        gathers = found.rule.written.gathers
        texts = list(found.rule.written.members) or [str(index) for index in range(count)]
        captures = [{**found.captures, gathers: text} if gathers else found.captures for text in texts]
        spelt = [_source_name(found._replace(captures=each)) for each in captures]
        outputs = [(name, self.parameters[name]) for name in names]
        transfer = make_transfer(self.book, found, [Source(name, ()) for name in spelt], form, outputs, moved)
        forms = zip(spelt, transfer.forms(), strict=True)
        whole = found.rule.written.integers
        transfer = transfer.with_sources([Source(name, self.headers(name, it, names[0], whole)) for name, it in forms])
        outputs_packed = tuple(o and o.packed_as(self.packed.get(o.parameter)) for o in transfer.outputs)
        if reason := difference(transfer, form):
            raise StepError(reason)
        return transfer.with_outputs(outputs_packed)

    def headers(self, name: str, form: Form, parameter: str, integers: bool) -> tuple[TensorHeader, ...]:
        """The tensors of one source, as the type of the parameter has them, or integers."""
        if integers:
            return (TensorHeader(name, form.shape, "I64", _NOWHERE),)
        spec = self.found[parameter]
        if form.packing is None:
            base = parameter.removesuffix("weight")
            scales = self.found.get(f"{base}scales") if parameter in self.packed else None
            dtype = spec.code if scales is None else scales.code if scales.code != "U8" else "BF16"
            return (TensorHeader(name, form.shape, dtype, _NOWHERE),)
        *lead, length = form.shape
        base, packed_base = parameter.removesuffix("weight"), name.removesuffix("weight")
        groups = (*lead, length // form.packing.group_size)
        found = [TensorHeader(name, (*lead, length * form.packing.bits // 32), "U32", _NOWHERE)]
        members = {end: self.found.get(f"{base}{end}") for end in ("scales", "biases")}
        found += [TensorHeader(packed_base + end, groups, it.code, _NOWHERE) for end, it in members.items() if it]
        return tuple(found)

    def source_shape(self, found: Found, names: Sequence[str], moved: bool) -> tuple[int, Shape]:
        """Number of the tensors, and the shape of each; of those that are joined one, and the shape of all."""
        written = found.rule.written
        shapes = [self.parameters[name] for name in names]
        if moved:
            for index, part in enumerate((written.split or {}).values()):
                for step in transposes(part.transpose, len(shapes[index])):
                    shapes[index] = step.inverse.shape(shapes[index])
        shape = shapes[0]
        if written.split:
            axis = written.axis
            if any(len(other) != len(shape) for other in shapes) or axis >= len(shape):
                raise StepError("parts with different axes")
            shape = (*shape[:axis], sum(other[axis] for other in shapes), *shape[axis + 1 :])
        if moved:
            for step in transposes(written.transpose, len(shape)):
                shape = step.inverse.shape(shape)
            if written.reshape and (len(shape) > 1 or not found.rest):
                shape = self.before_reshape(found, shape)
        if not written.stack:
            return 1, shape
        if written.parts is not None:
            count = self.book.extent(found.rule, written.parts, found.captures)
            return len(in_parts(shape, count).parts), shape
        if not shape:
            raise StepError("a scalar cannot be unstacked")
        return shape[0], shape[1:]

    def before_reshape(self, found: Found, shape: Shape) -> Shape:
        """What the rule says in `reshape_from`; else a matrix with the same last axis, or a vector."""
        written = found.rule.written
        if written.reshape_from:
            before = [
                self.book.extent(found.rule, extent, found.captures, rest=True) for extent in written.reshape_from
            ]
            known = prod(extent for extent in before if extent != -1)
            return tuple(prod(shape) // known if extent == -1 else extent for extent in before)
        lead, inner = (shape[:1], shape[1:]) if written.stack and written.parts is None else ((), shape)
        if not found.rest and (len(inner) <= 2 or sum(extent != 1 for extent in inner) <= 1):
            return (*lead, prod(inner))
        return (*lead, prod(inner[:-1]), inner[-1])

    def specs(self) -> Iterator[TensorSpec]:
        """The tensors that are written, in order."""
        names = {spec.code: spec.dtype for spec in self.found.values()} | {"BF16": "bfloat16", "I64": "int64"}
        for transfer in self.transfers:
            for source in transfer.sources:
                for header in source.tensors:
                    yield TensorSpec(header.name, header.shape, names[header.dtype])


def name_kind(name: str) -> str:
    """A name with `#` for every index, and for every capture: what tensors of all layers share."""
    return _INDEX.sub("#", name)


def _rearranges(written: WeightRule) -> bool:
    parts = (written.split or {}).values()
    return bool(written.gathers or written.reshape or written.transpose or any(part.transpose for part in parts))


def _source_name(found: Found) -> str:
    return next(found.rule.pattern.spellings({**found.captures, "*": ""})) + found.rest
