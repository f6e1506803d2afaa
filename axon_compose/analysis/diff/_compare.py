"""Two plans side by side: sizes, ends, stack, totals."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.analysis.diff._align import Pairs, align_stacks
from axon_compose.analysis.diff._change import Change, Difference, Total
from axon_compose.analysis.diff._form import Places, layer_form, layer_kind
from axon_compose.analysis.diff._gather import Atom, Gathered, said
from axon_compose.analysis.diff._layers import LayerPair
from axon_compose.analysis.diff._parts import part_atoms, read_atoms, shape_atoms
from axon_compose.analysis.diff._words import Describer, ready
from axon_compose.plan import Plan, Use, active_parameters, cache_nbytes, total_parameters

__all__ = ["CONTEXTS", "compare"]

#: Contexts for which bytes of caches are compared.
CONTEXTS = (4096, 65536)
#: The dims that every component may look at, and the only ones whose names mean something to all.
_SIZES = ("hidden_size", "vocab_size")


def compare(a: Plan, b: Plan) -> Difference:
    """How `b` differs from `a` in what it computes.

    Names of components and blocks, generated stacks, formulas and dims are ways of writing and do not count.
    """
    changes = [*_dims(a, b), *_end("embedding", a.embedding, b.embedding, a, b)]
    changes += _Stacks(a, b).changes()
    changes += _end("residual", a.residual, b.residual, a, b)
    changes += _end("final norm", a.final_norm, b.final_norm, a, b)
    changes += _end("head", a.head, b.head, a, b)
    return Difference(a.name, b.name, (len(a.layers), len(b.layers)), tuple(changes), tuple(_totals(a, b)))


def _dims(a: Plan, b: Plan) -> Iterator[Change]:
    for size in _SIZES:
        before, after = a.dims[size], b.dims[size]
        if before != after:
            yield Change("size", "dims", f"{size} {before} → {after}", option=size, before=before, after=after)


def _same_sizes(a: Plan, b: Plan) -> bool:
    return all(a.dims[size] == b.dims[size] for size in _SIZES)


def _end(place: str, first: Use | None, second: Use | None, a: Plan, b: Plan) -> Iterator[Change]:
    """Changes of a part outside of the stack."""
    atoms = list(part_atoms(first, second, ""))
    if not atoms and first and second and _same_sizes(a, b):
        atoms = list(shape_atoms(first, second))
    for atom in atoms:
        yield Change(atom.kind, place, said(atom, []), (), (), (), atom.option, ready(atom.before), ready(atom.after))


class _Stacks:
    """The stacks of two models, layers paired."""

    def __init__(self, a: Plan, b: Plan) -> None:
        self.a, self.b = a, b
        self.places = Places.of(a), Places.of(b)
        self.forms = (
            [layer_form(layer, self.places[0]) for layer in a.layers],
            [layer_form(layer, self.places[1]) for layer in b.layers],
        )
        kinds = [layer_kind(layer) for layer in a.layers], [layer_kind(layer) for layer in b.layers]
        self.pairs: Pairs = align_stacks(kinds, self.forms)
        self.layers = {one: other for one, other in self.pairs if one is not None and other is not None}
        self.describers = Describer(a), Describer(b)
        self.matched = [
            LayerPair(a.layers[one], b.layers[other], self.describers[1]) for one, other in self.layers.items()
        ]
        self.across = {
            (pair.a.index, *one): (pair.b.index, *other) for pair in self.matched for one, other in pair.members
        }
        self.found = Gathered()

    def changes(self) -> list[Change]:
        """What differs, folded."""
        self._layers_alone()
        for pair in self.matched:
            for atom in self._of(pair):
                self.found.add(atom, pair.a.index, pair.b.index)
        return self.found.changes()

    def _of(self, pair: LayerPair) -> Iterator[Atom]:
        atoms = list(pair.atoms())
        for one, other in pair.members:
            atoms += read_atoms(pair.member(0, one).use, pair.member(1, other).use, self.places, self.across)
        reported = {atom.subject for atom in atoms}
        yield from atoms
        yield from self._sharing(pair)
        if _same_sizes(self.a, self.b):
            for first, second in pair.uses():
                if first.name not in reported and first.spec.kind != "norm":
                    yield from shape_atoms(first, second)

    def _sharing(self, pair: LayerPair) -> Iterator[Atom]:
        old, new = pair.a.owner, pair.b.owner
        if (None if old is None else self.layers.get(old)) != new or (old is None) != (new is None):
            before, after = ("its own" if owner is None else f"those of layer {owner}" for owner in (old, new))
            yield Atom("wiring", "", f"weights: {before} → {after}", "", None, old, new)

    def _layers_alone(self) -> None:
        """Layers that only one model has; those that are the same elsewhere have moved."""
        gone = [one for one, other in self.pairs if other is None and one is not None]
        new = [other for one, other in self.pairs if one is None and other is not None]
        for one in gone:
            same = next((other for other in new if self.forms[0][one] == self.forms[1][other]), None)
            if same is None:
                text = f"removed: {self.describers[0].layer(self.a.layers[one])}"
                self.found.add(Atom("removed", "", text), one, None)
            else:
                new.remove(same)
                text = f"moved: {self.describers[0].layer(self.a.layers[one])}"
                self.found.add(Atom("moved", "", text), one, same)
        for other in new:
            self.found.add(Atom("added", "", f"added: {self.describers[1].layer(self.b.layers[other])}"), None, other)


def _totals(a: Plan, b: Plan) -> Iterator[Total]:
    yield Total("parameters", "", total_parameters(a), total_parameters(b))
    yield Total("active parameters", "", active_parameters(a), active_parameters(b))
    for tokens in CONTEXTS:
        yield Total(f"cache at {tokens:,} tokens", "bytes", cache_nbytes(a, tokens), cache_nbytes(b, tokens))
