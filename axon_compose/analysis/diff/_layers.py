"""Two layers that belong together: their branches, and the components in these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from axon_compose.analysis.diff._align import align
from axon_compose.analysis.diff._form import branch_kind, options_of
from axon_compose.analysis.diff._gather import Atom
from axon_compose.analysis.diff._parts import part_atoms
from axon_compose.analysis.diff._words import Describer, branch_label, short_type, value_text
from axon_compose.plan import Branch, Layer, Member, Use

__all__ = ["LayerPair"]


@dataclass
class LayerPair:
    """The components of two layers, each with its partner.

    Attributes:
        a: The layer of the first model.
        b: That of the second one.
        describer: Introduces components of the second model.
        members: Pairs of places `(branch, member)` whose components are of one type.
        branches: Pairs of indices of branches.
    """

    a: Layer
    b: Layer
    describer: Describer
    members: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    branches: list[tuple[int | None, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replaced: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self.gone: list[tuple[int, int]] = []
        self.new: list[tuple[int, int]] = []
        kinds = [branch_kind(branch) for branch in self.a.branches], [branch_kind(branch) for branch in self.b.branches]
        self.branches = align(*kinds)
        for first, second in self.branches:
            self._pair_members(first, second, *kinds)

    def _pair_members(
        self, first: int | None, second: int | None, a: list[tuple[str, ...]], b: list[tuple[str, ...]]
    ) -> None:
        types = [] if first is None or a[first] == ("add",) else list(a[first])
        others = [] if second is None or b[second] == ("add",) else list(b[second])
        for one, other in align(types, others):
            if one is None:
                assert other is not None
                assert second is not None
                self.new.append((second, other))
            elif other is None:
                assert first is not None
                self.gone.append((first, one))
            else:
                assert first is not None
                assert second is not None
                alike = types[one] == others[other]
                (self.members if alike else self.replaced).append(((first, one), (second, other)))

    def member(self, which: int, place: tuple[int, int]) -> Member:
        """A component of the first (0) or second (1) layer."""
        return (self.a, self.b)[which].branches[place[0]].members[place[1]]

    def atoms(self) -> Iterator[Atom]:
        """What differs, but for values read from other layers and for shapes."""
        yield from self._comings_and_goings()
        for first, second in self.branches:
            if first is not None and second is not None:
                yield from _branch_atoms(self.a.branches[first], self.b.branches[second])
                yield from self._kept(first, second)
            else:
                yield from self._lone_addition(first, second)
        for one, other in self.members:
            yield from _member_atoms(self.member(0, one), self.member(1, other))

    def uses(self) -> Iterator[tuple[Use, Use]]:
        """Pairs of components and norms of one type, for their sizes."""
        for one, other in self.members:
            a, b = self.member(0, one), self.member(1, other)
            yield a.use, b.use
            yield from _both((a.pre, b.pre), (a.post, b.post))
        for first, second in self.branches:
            if first is not None and second is not None:
                old, new = self.a.branches[first], self.b.branches[second]
                yield from _both((old.connection, new.connection), (old.pre, new.pre), (old.post, new.post))

    def _comings_and_goings(self) -> Iterator[Atom]:
        new = list(self.new)
        for place in self.gone:
            use = self.member(0, place).use
            same = [other for other in new if _alike(use, self.member(1, other).use)]
            if same:
                new.remove(same[0])
                words = f"moved from branch {place[0] + 1} to branch {same[0][0] + 1}"
                yield Atom("moved", use.name, words)
            else:
                yield Atom("removed", use.name, "removed", "", None, use.type, None)
        for place in new:
            use = self.member(1, place).use
            kind = "" if use.name == short_type(use) else f" ({short_type(use)})"
            words = ", ".join(part for part in (f"added{kind}", self.describer.details(use)) if part)
            yield Atom("added", use.name, words, "", None, None, use.type)
        for one, other in self.replaced:
            use, by = self.member(0, one).use, self.member(1, other).use
            words = f"replaced by {self.describer.named(by)}"
            yield Atom("replaced", use.name, words, "", None, use.type, by.type)

    def _kept(self, first: int, second: int) -> Iterator[Atom]:
        """Whether branches that add a kept output add the same one."""
        a, b = self.a.branches[first].add, self.b.branches[second].add
        if a is None and b is None:
            return
        old, new = _kept_at(self.a, first, a), _kept_at(self.b, second, b)
        if (old is None) != (new is None) or (old is not None and (old, new) not in [*self.members, *self.replaced]):
            yield Atom("wiring", f"branch {first + 1}", f"adds {a or 'nothing kept'} → {b or 'nothing kept'}")

    def _lone_addition(self, first: int | None, second: int | None) -> Iterator[Atom]:
        """Branches without a partner and without components."""
        if first is not None and self.a.branches[first].add:
            yield Atom("wiring", "", f"{branch_label(self.a.branches[first])} removed")
        if second is not None and self.b.branches[second].add:
            yield Atom("wiring", "", f"{branch_label(self.b.branches[second])} added")


def _kept_at(layer: Layer, before: int, name: str | None) -> tuple[int, int] | None:
    """Where the output stands that a branch adds: the last one kept under this name before it."""
    found = None
    for number, branch in enumerate(layer.branches[:before]):
        for place, member in enumerate(branch.members):
            if name is not None and member.keep == name:
                found = (number, place)
    return found


def _alike(a: Use, b: Use) -> bool:
    return a.type == b.type and options_of(a) == options_of(b)


def _branch_atoms(a: Branch, b: Branch) -> Iterator[Atom]:
    label = branch_label(a)
    yield from part_atoms(a.pre, b.pre, label, "norm before")
    yield from part_atoms(a.post, b.post, label, "norm after")
    yield from _scale(a.scale, b.scale, f"branch {label}" if len(a.members) > 1 else label)
    if a.skip != b.skip:
        words = f"adds to the stream × {value_text(a.skip)} → {value_text(b.skip)}"
        yield Atom("scale", label, words, "", "skip", a.skip, b.skip)
    old, new = _connection(a), _connection(b)
    if old != new:
        yield Atom("wiring", label, f"connection {old} → {new}")
    if a.adds != b.adds:
        yield Atom("wiring", label, "loses its residual connection" if a.adds else "gains a residual connection")


def _connection(branch: Branch) -> str:
    """How a branch is joined to the residual state; options of a scheme are those of the section `residual`."""
    use = branch.connection
    return "as before it" if use is None else f"{short_type(use)}.{use.name}"


def _member_atoms(a: Member, b: Member) -> Iterator[Atom]:
    name = a.use.name
    yield from part_atoms(a.use, b.use, name)
    yield from part_atoms(a.pre, b.pre, name, "own norm before")
    yield from part_atoms(a.post, b.post, name, "own norm after")
    yield from _scale(a.scale, b.scale, name)
    if (a.keep is None) != (b.keep is None):
        yield Atom("wiring", name, "is kept, not added" if b.keep else "is added, not kept")


def _scale(a: float, b: float, label: str) -> Iterator[Atom]:
    if a != b:
        yield Atom("scale", label, f"scaled by {value_text(a)} → {value_text(b)}", "", "scale", a, b)


def _both(*pairs: tuple[Use | None, Use | None]) -> Iterator[tuple[Use, Use]]:
    for a, b in pairs:
        if a is not None and b is not None and a.type == b.type:
            yield a, b
