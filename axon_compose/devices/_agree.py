"""Which components stay whole because others are: readers and sources of values, shared weights, tied tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from axon_compose.devices._part import Part
from axon_compose.devices._tied import tables
from axon_compose.plan import Plan, Use, refusal
from axon_compose.registry import PASS_VALUES, Cut, PluginFault, Raised

__all__ = ["Place", "agree", "places"]


@dataclass(frozen=True)
class Place:
    """A component where it is used; layers that share weights are places of their own.

    Attributes:
        name: What published values of it begin with: `layer.key`, or `embedding`.
        use: The component.
        asked: Whether it may be split at all.
        layer: The layer, None outside the stack.
    """

    name: str
    use: Use
    asked: bool
    layer: int | None = None

    @property
    def words(self) -> str:
        """What reasons call it."""
        return f"`{self.use.name}`" + ("" if self.layer is None else f" of layer {self.layer}")


def places(plan: Plan) -> Iterator[Place]:
    """Every component at every place of a plan, in the order of computation."""
    yield Place("embedding", plan.embedding, asked=True)
    if plan.residual:
        yield Place("residual", plan.residual, asked=False)
    for layer in plan.layers:
        members = {member.use.key for branch in layer.branches for member in branch.members}
        for use in layer.uses():
            asked = use.key in members and use.spec.kind != "norm"
            yield Place(f"{layer.index}.{use.key}", use, asked, layer.index)
    if plan.final_norm:
        yield Place("norm", plan.final_norm, asked=False)
    yield Place("head", plan.head, asked=True)


def agree(found: list[Place], parts: dict[str, Part | str]) -> None:
    """Replace parts by reasons until all that belongs together is split alike, or whole.

    Args:
        found: Places of the plan.
        parts: Place to its part, or to why it is whole; changed.
    """
    while changes := dict(_changes(found, parts)):
        parts |= changes


def _changes(found: list[Place], parts: dict[str, Part | str]) -> Iterator[tuple[str, str]]:
    by_name = {place.name: place for place in found}
    for place in found:
        for value, source in place.use.reads.items():
            if source not in PASS_VALUES:
                yield from _reading(place, value, by_name[source.rpartition(".")[0]], parts)
    yield from _shared(found, parts)
    yield from _tied(by_name["embedding"], by_name["head"], parts)


def _reading(reader: Place, value: str, source: Place, parts: dict[str, Part | str]) -> Iterator[tuple[str, str]]:
    """A value is read in parts exactly where it is published in parts, and the parts must fit."""
    taken, given = parts[reader.name], parts[source.name]
    takes = isinstance(taken, Part) and value in taken.split.published
    gives = isinstance(given, Part) and value in given.split.published
    if takes and not gives:
        yield reader.name, f"{source.words} publishes `{value}` whole"
    if gives and not takes:
        yield source.name, f"{reader.words} reads `{value}` whole"
    if takes and gives and (fault := _refusal(reader.use, value, taken, given)):  # type: ignore[arg-type]
        yield reader.name, f"its part does not read that of {source.words}: {fault}"
    if isinstance(given, Part) and source.name == "embedding" and given.split.output != "whole":
        yield source.name, f"{reader.words} reads `{value}`, which is whole on no device before the sum"


def _refusal(use: Use, value: str, taken: Part, given: Part) -> str | None:
    try:
        return refusal(use.spec, value, taken.options, given.options, taken.dims)
    except Raised as raised:
        raise PluginFault("AX212", f"`accepts` of {use.who} raises {raised}") from raised


def _shared(found: list[Place], parts: dict[str, Part | str]) -> Iterator[tuple[str, str]]:
    """Places with the same weights have the same cuts of them."""
    first: dict[str, Place] = {}
    for place in found:
        owner = first.setdefault(place.use.path, place)
        one, other = parts[owner.name], parts[place.name]
        if isinstance(one, Part) and isinstance(other, Part):
            if one.split.roles != other.split.roles:
                yield owner.name, f"{place.words} would have other parts of the same weights"
        elif isinstance(one, Part) or isinstance(other, Part):
            whole, split = (place, owner) if isinstance(one, Part) else (owner, place)
            yield split.name, f"{whole.words} has the same weights, and is whole"


def _tied(embedding: Place, head: Place, parts: dict[str, Part | str]) -> Iterator[tuple[str, str]]:
    """A head that reads the table of the embedding needs the part of it that the device has."""
    read = tables(head.use)
    if not read:
        return
    one, other = parts[embedding.name], parts[head.name]
    cut = isinstance(one, Part) and any(isinstance(one.split.roles.get(name), Cut) for name in read)
    if isinstance(other, Part) and not (cut and other.split.dims.items() <= one.split.dims.items()):  # type: ignore[union-attr]
        why = f": {one}" if isinstance(one, str) else ""
        yield head.name, f"the table of the embedding, which it reads, is not split so{why}"
    elif cut and not isinstance(other, Part):
        yield embedding.name, f"the head reads its table and is whole: {other}"
