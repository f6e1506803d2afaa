"""Which layers, branches and components of two models belong together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher
from typing import Final

__all__ = ["Pairs", "align", "align_stacks"]

#: A pair has both indices, something added has no first one, something removed no second one.
Pairs = list[tuple[int | None, int | None]]
#: Entries of the table that a matcher may fill; longer stacks are compared layer by layer.
_LARGEST: Final = 1_000_000


def align_stacks(
    kinds: tuple[Sequence[Hashable], Sequence[Hashable]], forms: tuple[Sequence[Hashable], Sequence[Hashable]]
) -> Pairs:
    """Pair the layers of two stacks.

    By the kinds of their layers, and by exact equality; whichever leaves fewer differences. Stacks of the same kinds in
    the same order are paired as they stand.

    Args:
        kinds: Of both stacks, for each layer the types of its components.
        forms: The same with everything that decides what it computes.
    """
    by_kind = align(*kinds)
    if list(kinds[0]) == list(kinds[1]):
        return by_kind
    exact = align(*forms)
    refined = _refine(exact, kinds)
    return min((by_kind, refined), key=lambda pairs: _cost(pairs, forms))


def align(first: Sequence[Hashable], second: Sequence[Hashable]) -> Pairs:
    """Pair equal items in order; between them, items are paired as they stand, and what is left is added or removed."""
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    end = 0
    while end < min(len(first), len(second)) - start and first[-1 - end] == second[-1 - end]:
        end += 1
    inner = first[start : len(first) - end], second[start : len(second) - end]
    pairs: Pairs = [(index, index) for index in range(start)]
    if len(inner[0]) * len(inner[1]) > _LARGEST:
        pairs += _gap(range(start, len(first) - end), range(start, len(second) - end))
    else:
        matcher = SequenceMatcher(None, *inner, autojunk=False)
        for _, low, high, other_low, other_high in matcher.get_opcodes():
            pairs += _gap(range(start + low, start + high), range(start + other_low, start + other_high))
    return pairs + [(len(first) - end + index, len(second) - end + index) for index in range(end)]


def _gap(first: range, second: range) -> Pairs:
    common = min(len(first), len(second))
    pairs: Pairs = list(zip(first, second, strict=False))
    pairs += [(index, None) for index in first[common:]]
    return pairs + [(None, index) for index in second[common:]]


def _refine(pairs: Pairs, kinds: tuple[Sequence[Hashable], Sequence[Hashable]]) -> Pairs:
    """Between exact matches, pair layers of the same kind."""
    found: Pairs = []
    left: list[int] = []
    right: list[int] = []

    def close() -> None:
        inner = align([kinds[0][index] for index in left], [kinds[1][index] for index in right])
        found.extend((None if a is None else left[a], None if b is None else right[b]) for a, b in inner)
        left.clear()
        right.clear()

    for a, b in pairs:
        if a is not None and b is not None and kinds[0][a] == kinds[1][b]:
            close()
            found.append((a, b))
        else:
            left += [] if a is None else [a]
            right += [] if b is None else [b]
    close()
    return found


def _cost(pairs: Pairs, forms: tuple[Sequence[Hashable], Sequence[Hashable]]) -> int:
    return sum(a is None or b is None or forms[0][a] != forms[1][b] for a, b in pairs)
