"""From a list of block names to a short stack text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import eq

__all__ = ["compress"]


def compress(names: Sequence[str]) -> str:
    """Write a list of names as a short stack text: `["a", "a", "b", "c", "b", "c"]` as `a*2 (b c)*2`.

    The repetition that saves most characters is folded first, then what is left of it, right of it and inside it. That
    is not always the shortest text, but never longer than the plain list, and `parse_stack` gives the names back.
    Takes quadratic time. An empty list gives an empty text.
    """
    ends = [0, *accumulate(len(name) + 1 for name in names)]
    return _fold(names, ends, 0, len(names), _repetitions(names))


_Repetition = tuple[int, int, int]


def _repetitions(names: Sequence[str]) -> list[_Repetition]:
    """Every longest stretch `(start, end, period)` that repeats with a period at least twice, short periods first."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(name, len(numbers)) for name in names]
    found: dict[tuple[int, int], _Repetition] = {}
    for period in range(1, len(ids) // 2 + 1):
        same = bytes(map(eq, ids, ids[period:]))
        start = same.find(b"\1" * period)
        while start >= 0:
            stop = same.find(b"\0", start) % (len(same) + 1)
            # A multiple of a period has the same stretch, which is found already.
            found.setdefault((start, stop + period), (start, stop + period, period))
            start = same.find(b"\1" * period, stop)
    return list(found.values())


def _fold(names: Sequence[str], ends: Sequence[int], low: int, high: int, repetitions: list[_Repetition]) -> str:
    """The text of `names[low:high]`; `ends` are the lengths of the text before every name."""

    def saved(repetition: _Repetition) -> int:
        start, end, period = repetition
        return ends[start + (end - start) // period * period] - ends[start + period]

    parts: list[str] = []
    todo: list[str | tuple[int, int, list[_Repetition]]] = [(low, high, repetitions)]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            parts.append(part)
            continue
        low, high, known = part
        inside = [(max(s, low), min(e, high), p) for s, e, p in known if min(e, high) - max(s, low) >= 2 * p]
        if not inside:
            parts.extend(names[low:high])
            continue
        start, end, period = max(inside, key=saved)
        count = (end - start) // period
        root = _fold(names, ends, start, start + period, inside)
        group = f"{root}*{count}" if period == 1 else f"({root})*{count}"
        todo += [(start + count * period, high, inside), group, (low, start, inside)]
    return " ".join(parts)
