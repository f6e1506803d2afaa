"""Two ways to compute the same thing, compared; and where they part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import mlx.core as mx

from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import Forward, Subject

__all__ = [
    "EXACT",
    "Rows",
    "at_least",
    "at_most",
    "compare",
    "distance",
    "equal",
    "exact",
    "first_off",
    "flags",
    "number",
]

#: Sequences one by one, each (1, L, width).
Rows = list[mx.array]

#: Largest difference, relative to the largest value, of things that are equal but summed in another order in float32.
#: Measured: 1e-6 on stacks of six layers. One wrong key, position or state moves the outputs by 1e-3 and more.
EXACT: Final = 2e-5
#: How much more than one rounding of every weight another order of summation may move the outputs of a model. Only
#: models that turn roundings into much (sharp softmax, many layers) have a limit above `EXACT` by it.
_ROUNDINGS: Final = 4
#: No limit is above this, however much roundings come to: a router that is of two minds about one token would excuse
#: every fault.
_LOOSEST: Final = 1e-3


def distance(got: mx.array, wanted: mx.array) -> float:
    """Largest difference relative to the largest wanted value; infinite if anything is not a finite number."""
    if got.shape != wanted.shape:
        return float("inf")
    if got.size == 0:
        return 0.0
    got, wanted = got.astype(mx.float32), wanted.astype(mx.float32)
    finite = mx.isfinite(got).all() & mx.isfinite(wanted).all()
    apart = mx.abs(got - wanted).max() / mx.maximum(mx.abs(wanted).max(), 1e-30)
    mx.eval(finite, apart)  # at once, for every evaluation waits for another thread
    return number(apart) if finite.item() else float("inf")


def number(value: mx.array) -> float:
    """The one number of an array."""
    found: Any = value.item()
    return float(found)


def flags(value: mx.array) -> list[bool]:
    """A boolean vector as a list."""
    found: Any = value.tolist()
    return [bool(flag) for flag in found]


def first_off(got: mx.array, wanted: mx.array, scale: mx.array, limit: float = EXACT) -> int:
    """The first position (of (L, width)) where two outputs differ by more than `limit` of the largest of `scale`."""
    same = flags(mx.abs(got - wanted).max(axis=-1) <= limit * mx.abs(scale).max())
    return same.index(False)


def exact(subject: Subject, least: float = EXACT) -> float:
    """Largest distance of two outputs of a model that are equal: `least`, or what its own roundings come to."""
    roundings = distance(subject.rounded, subject.unrounded)
    return min(max(least, _ROUNDINGS * roundings), _LOOSEST)


def compare(got: Sequence[mx.array], wanted: Sequence[mx.array], limit: float = EXACT) -> tuple[float, str]:
    """The worst distance of pairs of rows, and where the first token is that is too far off."""
    if len(got) != len(wanted):
        return float("inf"), f"{len(got)} rows instead of {len(wanted)}"
    figures = [distance(one, other) for one, other in zip(got, wanted, strict=True)]
    worst = max(range(len(figures)), key=lambda row: figures[row])
    if figures[worst] <= limit:
        return figures[worst], ""
    one, other = got[worst], wanted[worst]
    if one.shape != other.shape:
        return float("inf"), f"row {worst}: {one.shape} instead of {other.shape}"
    first = first_off(one[0], other[0], other, limit)
    what = "" if mx.isfinite(one).all().item() else ", not a finite number"
    row = f"row {worst}, " if len(got) > 1 else ""
    return figures[worst], f"first at {row}position {first} of {other.shape[1]}{what}"


def equal(
    subject: Subject,
    name: str,
    claim: str,
    cases: Sequence[tuple[str, Callable[[Forward], Rows], Callable[[Forward], Rows]]],
    limit: float | None = None,
) -> Truth:
    """A truth that says: in every case both ways give the same.

    Args:
        subject: The model.
        name: Of the truth.
        claim: What is claimed.
        cases: What the case is called, and two functions of a forward pass. The second one's passes without a cache
            are computed once for all that is asked of the model.
        limit: Largest distance; `exact(subject)` unless given.
    """
    limit = exact(subject) if limit is None else limit
    worst = 0.0
    for case, got, wanted in cases:
        figure, where = compare(got(subject.forward), wanted(subject.known), limit)
        worst = max(worst, figure)
        if not figure <= limit:
            layer = _first_layer(subject, got, wanted, limit)
            return Truth(name, claim, False, figure, limit, detail="; ".join(filter(None, [case, where, layer])))
    return Truth(name, claim, True, worst, limit, detail=", ".join(case for case, *_ in cases))


def _first_layer(
    subject: Subject, got: Callable[[Forward], Rows], wanted: Callable[[Forward], Rows], limit: float
) -> str:
    count = len(subject.plan.layers)
    try:
        both = [[mx.split(row, count, axis=-1) for row in way(subject.by_layer)] for way in (got, wanted)]
    except Exception:  # a broken model may fail in more than one way; the place is only a hint
        return ""
    for index in range(count):
        one, other = ([layers[index] for layers in rows] for rows in both)
        if not compare(one, other, limit)[0] <= limit:
            return f"it begins in {subject.describe(index)}"
    return "every layer agrees, so it is after the stack or in a layer that is left out"


def at_most(name: str, claim: str, figure: float, limit: float, detail: str) -> Truth:
    """A check whose figure may not exceed the limit."""
    return Truth(name, claim, figure <= limit, figure, limit, "<=", detail)


def at_least(name: str, claim: str, figure: float, limit: float, detail: str) -> Truth:
    """A check whose figure has to reach the limit."""
    return Truth(name, claim, figure >= limit, figure, limit, ">=", detail)
