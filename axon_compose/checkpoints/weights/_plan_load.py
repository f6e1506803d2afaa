"""A plan, rules and the headers of a checkpoint to a load plan: every parameter with the tensors it is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Final

from axon_compose.checkpoints.files._safetensors import shown
from axon_compose.checkpoints.weights._buffers import Compared, buffers
from axon_compose.checkpoints.weights._faults import WeightFaults
from axon_compose.checkpoints.weights._fit import difference, moves, odd_member, shape_text, together
from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.checkpoints.weights._integers import NOT_DECLARED, Declared
from axon_compose.checkpoints.weights._own_head import head_as_table
from axon_compose.checkpoints.weights._packed import Packing
from axon_compose.checkpoints.weights._rules import Found, RuleBook
from axon_compose.checkpoints.weights._steps import Shape, StepError
from axon_compose.checkpoints.weights._storage import (
    BLOCK,
    Source,
    check_sources,
    gather,
    is_activation_scale,
)
from axon_compose.checkpoints.weights._transfer import Transfer, make_transfer
from axon_compose.checkpoints.weights._wrappers import other_parts, prefixes_of
from axon_compose.language.document import HuggingFace, Layout
from axon_compose.plan import Plan

__all__ = ["LoadPlan", "plan_load"]

#: A number as names have it: a second spelling of one would take its place unseen.
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")
#: Up to this many missing parameters are listed with their expected tensor.
_LISTED: Final = 10


@dataclass(frozen=True)
class LoadPlan:
    """How a checkpoint becomes the weights of a model.

    Attributes:
        transfers: What is done, in the order of the files.
        dropped: Tensors that go nowhere, by a rule or because the model has no place for them.
        compared: Tensors that have to equal what the model computes itself.
    """

    transfers: tuple[Transfer, ...]
    dropped: tuple[str, ...]
    compared: tuple[Compared, ...] = ()

    def __repr__(self) -> str:
        return (
            f"<LoadPlan: {len(self.transfers)} transfers, {len(self.dropped)} tensors dropped, {self.nbytes:,} bytes>"
        )

    @cached_property
    def parameters(self) -> dict[str, Transfer]:
        """Parameter to the transfer that makes it."""
        return {output.parameter: transfer for transfer in self.transfers for output in transfer.outputs if output}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that are read, as they are stored."""
        return sum(transfer.nbytes for transfer in self.transfers)

    @property
    def unpacked(self) -> int:
        """Number of quantised tensors that MLX has no exact form for, so that they become plain numbers."""
        return sum(len(t.sources) for t in self.transfers if not t.form.packing and not t.sources[0].as_stored)

    def unpacked_all(self) -> LoadPlan:
        """The same with plain numbers in place of packed ones."""

        def plain(transfer: Transfer) -> Transfer:
            return transfer.with_outputs(tuple(output and output.packed_as(None) for output in transfer.outputs))

        return replace(self, transfers=tuple(map(plain, self.transfers)))

    @cached_property
    def quantized(self) -> dict[str, Packing]:
        """Module to the packing that its weight comes in."""
        outputs = [output for transfer in self.transfers for output in transfer.outputs if output]
        return {output.parameter.removesuffix(".weight"): output.packing for output in outputs if output.packing}


def plan_load(
    plan: Plan,
    section: HuggingFace,
    dims: Mapping[str, Any],
    tensors: Mapping[str, TensorHeader],
    layout: Layout | None = None,
    *,
    block: tuple[int, int] = BLOCK,
    declared: Declared = NOT_DECLARED,
    wrapped: bool = False,
) -> LoadPlan:
    """Decide what becomes of every tensor, and where every parameter comes from. Reads no tensor.

    Args:
        plan: The model.
        section: The rules.
        dims: What the rules' formulas know.
        tensors: The headers of the checkpoint by name.
        layout: Who wrote it; None if unknown.
        block: Rows and columns that share a scale in fp8 files (`weight_block_size` of config.json).
        declared: What config.json says of integer weights.
        wrapped: The model is the text model of a larger one: tensors of its other parts are dropped.

    Raises:
        CheckpointError: AX553 parameters are missing, tensors are unexpected, or shapes differ; AX554 the outcome
            depends on the layout; AX555 a tensor is stored in an unknown way; AX556 a rule's formula gives no value.
    """
    planner = _Planner(plan, section, dims, layout)
    sources = gather(tensors, prefixes_of(section, wrapped=wrapped), block, declared)
    if wrapped:
        others = other_parts(sources, lambda name: planner.book.find(name) is not None)
        planner.dropped += others
        sources = {name: source for name, source in sources.items() if name not in others}
    planner.take(head_as_table(plan, planner.book, sources))
    planner.finish()
    planner.faults.raise_if_any(plan.name)
    transfers = sorted(planner.transfers, key=_place)
    return LoadPlan(tuple(transfers), tuple(planner.dropped), tuple(planner.compared))


def _place(transfer: Transfer) -> tuple[str, int]:
    first = transfer.sources[0].tensors[0]
    return str(first.file), first.start


class _Planner:
    """Goes through the tensors once, then looks at what is left."""

    def __init__(self, plan: Plan, section: HuggingFace, dims: Mapping[str, Any], layout: Layout | None) -> None:
        self.parameters: dict[str, Shape] = dict(plan.parameters())
        self.buffers = dict(buffers(plan))
        self.layout = layout
        self.book = RuleBook(section, dims, layout)
        self.faults = WeightFaults()
        self.transfers: list[Transfer] = []
        self.dropped: list[str] = []
        self.compared: list[Compared] = []
        self.made: dict[str, Source] = {}
        self.touched: set[str] = set()

    @cached_property
    def modules(self) -> frozenset[str]:
        """Every path that has parameters below it."""
        paths = {name.rpartition(".")[0] for name in self.parameters}
        return frozenset(
            ".".join(parts[:n]) for path in paths if (parts := path.split(".")) for n in range(1, len(parts) + 1)
        )

    def take(self, sources: Mapping[str, Source]) -> None:
        """Find the rule of every tensor; those that become one wait for each other."""
        stacks: dict[tuple[Any, ...], tuple[Found, dict[str, Source]]] = {}
        for name, source in sources.items():
            found = self.book.find(name)
            if is_activation_scale(name) and not self.has_place(found):
                self.dropped.append(name)
                continue
            if found is None:
                self.faults.unexpected.append(f"{shown(name)}, which no rule matches")
                continue
            if self.layout is None and found.rule.written.layout is not None:
                self.faults.undecided.append(f"{shown(name)}: the rule `{found.rule}`")
            stack = found.rule.written.gathers
            if found.rule.written.drop:
                self.dropped.append(name)
            elif found.rule.written.buffer is not None:
                self.compare(found, source)
            elif stack is None:
                self.add(found, [source])
            else:
                others = tuple((key, text) for key, text in found.captures.items() if key != stack)
                _, members = stacks.setdefault((found.rule, others, found.rest), (found, {}))
                number = found.captures[stack]
                if number in members:
                    self.repeat(found.first_target(0), members[number], source)
                members[number] = source
        for found, members in stacks.values():
            if found.rule.written.join:
                self.add_joined(found, members)
            else:
                self.add_stack(found, members)

    def compare(self, found: Found, source: Source) -> None:
        """Note a tensor that has to be as the model computes it."""
        name = found.target(0, self.buffers)
        if name is None:
            self.no_place(found, 0, source)
            return
        compared = Compared(source.tensors[0], name, self.buffers[name], str(found.rule))
        if misfit := compared.misfit():
            self.faults.misshaped.append(misfit)
        else:
            self.compared.append(compared)

    def no_place(self, found: Found, index: int, source: Source) -> None:
        """What a rule gives is not in the model: a fault unless the target may be missing."""
        if found.rule.targets[index].optional:
            self.dropped.append(source.name)
            return
        wanted = shown(found.likeliest_target(index, self.modules))
        self.faults.unexpected.append(
            f"{shown(source.name)}: the rule `{found.rule}` gives `{wanted}`, which the model does not have"
        )

    def add_joined(self, found: Found, members: Mapping[str, Source]) -> None:
        """Tensors that become one, once all that the rule names are there."""
        lost = [text for text in found.rule.written.members if text not in members]
        if not lost:
            self.add(found, [members[text] for text in found.rule.written.members])
        else:
            self.report_lost(found, lost[0], "joins")

    def report_lost(self, found: Found, text: str, what: str) -> None:
        """Report a tensor that is not there among those that become one."""
        self.touched.update(name for name in self.names(found) if name)
        captures = {**found.captures, str(found.rule.written.gathers): text}
        wanted = next(found.rule.pattern.spellings(captures)) + found.rest
        self.faults.missing.append(f"{shown(wanted)}, which the rule `{found.rule}` {what}")

    def add_stack(self, found: Found, members: Mapping[str, Source]) -> None:
        """Tensors that become one, once all numbers from 0 are there."""
        odd = next((text for text in members if not _NUMBER.fullmatch(text)), None)
        if odd is not None:
            self.faults.unexpected.append(
                f"{shown(members[odd].name)}: the rule `{found.rule}` stacks by number, and this is not a number"
            )
            return
        numbered = {int(text): source for text, source in members.items()}
        sources = [numbered[number] for number in sorted(numbered)]
        lost = next(number for number in range(len(sources) + 1) if number not in numbered)
        if lost <= max(numbered):
            self.report_lost(found, str(lost), "stacks")
            return
        self.add(found, sources)

    def has_place(self, found: Found | None) -> bool:
        """Whether the model has a parameter for what a rule makes."""
        return found is not None and any(name in self.parameters for name in self.names(found))

    def names(self, found: Found) -> list[str | None]:
        """The parameters that a rule's targets are."""
        return [found.target(index, self.parameters) for index in range(len(found.rule.targets))]

    def add(self, found: Found, sources: Sequence[Source]) -> None:
        """Plan what a rule does with its tensors."""
        names = self.names(found)
        for index, name in enumerate(names):
            if name is None and not found.rule.targets[index].optional:
                self.no_place(found, index, sources[0])
                return
        wanted_names = [name for name in names if name is not None]
        if not wanted_names:
            self.dropped += [source.name for source in sources]
            return
        check_sources(sources, integers=found.rule.written.integers)
        for name in wanted_names:
            if name in self.made:
                self.repeat(name, self.made[name], sources[0])
            self.made[name] = sources[0]
        transfer = self.fit(found, sources, names)
        if transfer is not None:
            self.transfers.append(transfer)

    def repeat(self, name: str, one: Source, other: Source) -> None:
        """Report two tensors for one place."""
        self.faults.repeated.append(f"{name}, of {shown(one.name)} and {shown(other.name)}")

    def fit(self, found: Found, sources: Sequence[Source], names: Sequence[str | None]) -> Transfer | None:
        """The one way of doing it that gives the shapes of the model."""
        joined = found.rule.written.join is not None or found.rule.written.parts is not None
        if not joined and any(source.forms() != sources[0].forms() for source in sources):
            odd = next(source for source in sources if source.forms() != sources[0].forms())
            self.faults.misshaped.append(
                f"{shown(odd.name)} is {shape_text(odd)}, {shown(sources[0].name)} is {shape_text(sources[0])}, and "
                f"the rule `{found.rule}` stacks them"
            )
            return None
        outputs = [None if name is None else (name, self.parameters[name]) for name in names]
        fitting: list[tuple[bool, Transfer]] = []
        reasons: list[str] = []
        for moved, form in product(self.ways(found), together(found, sources)):
            try:
                transfer = make_transfer(self.book, found, sources, form, outputs, moved)
                reason = odd_member(transfer) or difference(transfer, form)
            except StepError as error:
                reason = str(error)
            if reason is None:
                fitting.append((moved, transfer))
            else:
                reasons.append(reason)
        if not fitting:
            name = next(name for name in names if name is not None)
            self.faults.misshaped.append(
                f"{name}, of {shown(sources[0].name)} by the rule `{found.rule}`: {reasons[0]}"
            )
            return None
        self.note_doubt(found, sources, fitting)
        return fitting[0][1]

    def ways(self, found: Found) -> tuple[bool, ...]:
        """Whether to permute as the rule says: not where the tensor already has MLX's layout."""
        written = found.rule.written
        moving = written.reshape or written.transpose or any(p.transpose for p in (written.split or {}).values())
        if moving and written.if_needed:
            return (False, True)
        if not moving or self.layout == "huggingface":
            return (True,)
        return (False, True) if self.layout == "mlx" else (True, False)

    def note_doubt(self, found: Found, sources: Sequence[Source], fitting: Sequence[tuple[bool, Transfer]]) -> None:
        """Without a mark: a tensor that has the right shape both as it is and moved."""
        both = {moved for moved, _ in fitting} == {True, False}
        if self.layout is None and both and moves(fitting[0][1]) and not found.rule.written.if_needed:
            self.faults.undecided.append(f"{shown(sources[0].name)}: the rule `{found.rule}`")

    def finish(self) -> None:
        """Report the parameters that no tensor produces."""
        missing = [name for name in self.parameters if name not in self.made and name not in self.touched]
        self.faults.missing += [self.explain(name) if i < _LISTED else name for i, name in enumerate(missing)]

    def explain(self, name: str) -> str:
        """A missing parameter with the tensor that it should come from."""
        for origin in self.book.origins(name):
            rule, known = origin.rule, origin.captures.keys() >= origin.rule.pattern.names
            if not known or self.book.holds(rule, origin.captures):
                return f"{name}, of {shown(origin.source())} by the rule `{rule}`"
        return f"{name}, which no rule produces"
