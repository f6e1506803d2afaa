"""One layer of the stack: branches with their components and norms, each at its place in the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import isfinite
from typing import Any, NoReturn

from axon_compose.language.document import BranchItem, Item, NormChoice, Path, Unresolved, is_formula, resolve
from axon_compose.plan._connections import Connections, Joined
from axon_compose.plan._parts import Broken, Part, Parts
from axon_compose.plan._plan import Branch, Layer, Member, Use
from axon_compose.plan._stack import StackLayer

__all__ = ["LayerPlanner"]


class LayerPlanner:
    """Resolves the branches of one layer.

    Args:
        parts: Components of the file.
        connections: Joins branches to the residual state.
        index: The layer.
        owner: Layer whose weights it uses, or None.
    """

    def __init__(self, parts: Parts, connections: Connections, index: int, owner: int | None) -> None:
        self.parts, self.connections, self.index, self.owner = parts, connections, index, owner
        self.document, self.problems = parts.document, parts.problems
        self.names: dict[str, Any] = {**parts.names, "i": index}
        self.keys: set[str] = set()
        self.uses: Counter[str] = Counter()
        #: Kept outputs, and how many streams each of them is of.
        self.kept: dict[str, int] = {}

    def plan(self, layer: StackLayer) -> Layer:
        """The layer, without slots and masks.

        Raises:
            Broken: If a part of it is faulty; everything that is wrong with it is reported.
        """
        found: list[Joined] = []
        broken = False
        for number, item in enumerate(layer.branches):
            try:
                path = (*layer.path, number)
                found += [Joined(branch, self._connection(item, path), path) for branch in self._branch(item, path)]
            except (Broken, Unresolved):
                broken = True
        if broken:
            raise Broken
        if not found:
            self._fault("AX143", f"layer {self.index} has no branch left", layer.path)
        branches = self.connections.join(found, self._place)
        return Layer(self.index, layer.block, branches, owner=self.owner)

    # Branches.

    def _branch(self, item: BranchItem, path: Path) -> Iterator[Branch]:
        scale = self._number(item.scale, (*path, "scale"))
        skip = self._number(item.skip, (*path, "skip"))
        if item.add is not None:
            if "norm" in item.model_fields_set:
                self._fault("AX144", "`add` takes no norm: the kept output is added as it is", (*path, "norm"))
            if item.add in self.kept:  # a formula may have left the component out, and with it what it would add
                if self.kept[item.add] != self._inside(item, path).dims.streams:
                    self._fault("AX150", f"`{item.add}` is an output of another number of streams", (*path, "add"))
                yield Branch(scale=scale, skip=skip, add=item.add)
            return
        named = list(self._members(item, path))
        if not named:
            return
        parts = self._inside(item, path)
        members = [(parts.named(name, (*at, "use"), self.index), written, at) for name, written, at in named]
        whole = next((part for part, *_ in members if part.spec.kind in ("block", "norm")), None)
        if whole:
            yield self._whole_block(whole, item, members, path)
            return
        uses = [self._place(part) for part, *_ in members]
        label = "_".join(use.key for use in uses)
        placed = [self._member(use, written, at, parts) for use, (_, written, at) in zip(uses, members, strict=True)]
        pre, post = self._norms(item.norm, label, (*path, "norm"), parts)
        yield Branch(tuple(placed), pre, post, scale, skip)

    def _members(self, item: BranchItem, path: Path) -> Iterator[tuple[str, Item, Path]]:
        """Names of components, how they are written, and where; one that stands alone has only its name and `as`."""
        if item.use is not None:
            written = [(_alone(item.use, item.keep), path)]
        else:
            written = [(member, (*path, "parallel", number)) for number, member in enumerate(item.parallel or ())]
        for member, place in written:
            if (name := self._name(member.use, (*place, "use"))) is not None:
                yield name, member, place

    def _member(self, use: Use, item: Item, path: Path, parts: Parts) -> Member:
        scale = self._number(item.scale, (*path, "scale"))
        if item.keep is not None:
            self.kept[item.keep] = parts.dims.streams
        pre, post = self._norms(item.norm, use.key, (*path, "norm"), parts)
        return Member(use, scale, item.keep, pre, post)

    def _name(self, name: str, path: Path) -> str | None:
        """The name that a name or formula stands for; a formula may give null for none."""
        if not is_formula(name):
            return name
        value = resolve(name, self.names, self.document, path, self.problems)
        if not isinstance(value, str | None):
            self._fault("AX140", f"the formula gives {value!r:.80}, not the name of a component", path)
        return value

    def _whole_block(self, part: Part, item: BranchItem, members: list[tuple[Part, Item, Path]], path: Path) -> Branch:
        if (
            len(members) > 1
            or item.parallel
            or item.keep
            or "norm" in item.model_fields_set
            or {"scale", "skip"} & item.model_fields_set
        ):
            what = "a norm" if part.spec.kind == "norm" else "a whole block: it has its own norm and residual"
            message = f"`{part.name}` is {what}"
            self._fault("AX147", message, path, hint="use it by its name alone")
        return Branch((Member(self._place(part)),), residual=False)

    # Norms.

    def _norms(self, choice: NormChoice, label: str, path: Path, parts: Parts) -> tuple[Use | None, Use | None]:
        if choice.place == "none":
            return None, None
        own = parts.own_norm(choice)
        if own is None:
            part = parts.resolve("norm", self.document.envelope.norm, ("norm",), ("norm",), self.index)
        else:
            part = parts.resolve("norm", own, path, ("norm",), self.index)
        pre = self._place(part, f"{label}_norm") if choice.place in ("pre", "sandwich") else None
        post = self._place(part, f"{label}_post_norm") if choice.place in ("post", "sandwich") else None
        return pre, post

    # Places and small values.

    def _place(self, part: Part, name: str | None = None) -> Use:
        wanted = name or part.name
        key = wanted
        while key in self.keys:
            self.uses[wanted] += 1
            key = f"{wanted}_{self.uses[wanted] + 1}"
        self.keys.add(key)
        return part.at(f"layers.{self.index if self.owner is None else self.owner}.{key}")

    def _connection(self, item: BranchItem, path: Path) -> str | None:
        """The name of the branch's connection; None for the usual one."""
        path = (*path, "residual")
        value = resolve(item.residual, self.names, self.document, path, self.problems)
        if not isinstance(value, str | None):
            self._fault("AX150", f"the formula gives {value!r:.80}, not the name of a connection", path)
        return value

    def _inside(self, item: BranchItem, path: Path) -> Parts:
        """The components of a branch, as wide as what its connection reads."""
        return self.connections.inside(self._connection(item, path), path)

    def _number(self, value: Any, path: Path) -> float:
        value = resolve(value, self.names, self.document, path, self.problems)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._fault("AX102", f"`{path[-1]}` must be a number, this is {value!r:.80}", path)
        if not isfinite(value):
            self._fault("AX102", f"`{path[-1]}` must be finite", path)
        return float(value)

    def _fault(self, code: str, message: str, path: Path, hint: str | None = None) -> NoReturn:
        self.problems.error(code, message, self.document.place(*path), help=hint)
        raise Broken


@lru_cache
def _alone(use: str, keep: str | None) -> Item:
    """A component that stands alone in its branch; its name and `as` are valid already and need no validator."""
    return Item.model_construct(use=use, keep=keep)
