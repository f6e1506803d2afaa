"""How the parameters of one component come about: kept from the source, or made of another component's, in a chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from axon_compose.plan import Use
from axon_compose.registry import Case, Piece, Transfer

__all__ = ["COPIED", "Exactness", "Kept", "Kind", "Made", "Making", "Trace", "bases", "root", "trace"]

Kind = Literal["kept", "converted", "new"]
Exactness = Literal["same", "exact", "near", "random"]

#: What a parameter is at best if what it is made of is as bad as this.
_ORDER: Final = ("same", "exact", "near", "random")
#: The rule of parameters that are taken as they are from another component.
COPIED: Final = "a copy"
_ZERO: Final = "zero, so that the component adds nothing"
_ROWS: Final = "the rows of the tokens that stay"
_MEANS: Final = "the rows of the same tokens, and for others the mean of their pieces"
_INITIAL: Final = "as training begins with it"


@dataclass(frozen=True)
class Kept:
    """Every parameter of a component of the source, as it is.

    Attributes:
        use: The component of the source.
    """

    use: Use


@dataclass(frozen=True)
class Made:
    """A component whose parameters are made, one component at a time.

    Attributes:
        use: The component, at the place that it had when the edit made it.
        init: What the edit calls the way.
        base: What its pieces come from; None if it has none.
        pieces: Parameters that come from `base`; all others begin as for training.
        transfer: Makes the pieces; None where they are copies.
        case: What the transfer knows.
        zeroed: Parameters that are zero.
        noise: Standard deviation of the noise that is added to matrices, in theirs.
        seed: Of everything random in it.
        axes: Parameters that have a row for each token, and the axis of those.
        rows: For each token those of before: one, several whose mean it has, or none for the mean of all.
        additions: Outputs that are added to the residual stream of the model, which initial values depend on.
    """

    use: Use
    init: str
    base: Making | None = None
    pieces: Mapping[str, Piece] = field(default_factory=dict)
    transfer: Transfer | None = None
    case: Case | None = None
    zeroed: frozenset[str] = frozenset()
    noise: float = 0.0
    seed: int = 0
    additions: int = 1
    axes: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    def noisy(self, name: str) -> bool:
        """Whether a parameter gets noise: matrices that come from somewhere."""
        return self.noise > 0 and name in self.pieces and name not in self.zeroed and len(self.use.params[name]) > 1


Making = Kept | Made


class Trace(NamedTuple):
    """Where a parameter comes from, all the way to the source.

    Attributes:
        sources: Parameters of the source model by their full names.
        kind: Kept as it is, converted from others, or new.
        rule: How, in words; empty where it is kept.
        exactness: The same bytes, exact as far as the claim of the transfer goes, near, or random.
    """

    sources: tuple[str, ...]
    kind: Kind
    rule: str
    exactness: Exactness


def trace(making: Making, name: str) -> Trace:
    """Where a parameter of a component comes from.

    Args:
        making: How the component is made.
        name: The parameter's name in the component.
    """
    if isinstance(making, Kept):
        return Trace((f"{making.use.path}.{name}",), "kept", "", "same")
    if name in making.zeroed:
        return Trace((), "new", _ZERO, "exact")
    piece = making.pieces.get(name)
    if piece is None or making.base is None:
        return Trace((), "new", _INITIAL, "random")
    before = [trace(making.base, source) for source in piece.sources]
    sources = tuple(dict.fromkeys(source for one in before for source in one.sources))
    copied = making.transfer is None and name not in making.axes
    rules = list(dict.fromkeys(one.rule for one in before if one.rule))
    grades: list[Exactness] = [one.exactness for one in before]
    if name in making.axes:
        whole = all(len(row) == 1 for row in making.rows)
        rules.append(_ROWS if whole else _MEANS)
        grades.append("exact" if whole else "near")
    elif not copied:
        rules.append(piece.rule)
        grades.append(piece.exactness)
    if making.noisy(name):
        grades.append("near")
    worst = max(grades, key=_ORDER.index)
    if making.noisy(name):
        rules.append(f"noise of {making.noise:g} of its deviation")
    if copied and len(before) == 1 and not making.noisy(name):
        return before[0]
    return Trace(sources, "converted" if sources else "new", ", then ".join(rules) or COPIED, worst)


def bases(making: Making) -> Iterator[Made]:
    """Every step of a chain, the last one first."""
    current: Making | None = making
    while isinstance(current, Made):
        yield current
        current = current.base


def root(making: Making) -> str | None:
    """The component of the source that everything comes from, by its path; None if nothing does."""
    current: Making | None = making
    while isinstance(current, Made):
        current = current.base
    return current.use.path if current else None
