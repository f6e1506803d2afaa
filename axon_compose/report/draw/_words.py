"""Words that fit: widths of text, numbers of layers, shares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

__all__ = ["fitted", "layer_numbers", "ranges", "share", "width"]

_NARROW = frozenset("fijlrtI.,:;'|()[]!- /")
_WIDE = frozenset("mwMWQO@%∥×→←—")


def width(text: str, size: float, *, strong: bool = False) -> float:
    """About how wide a text is in `size` pixels: a little more than in most fonts, since the reader's is not known."""
    units = sum(0.38 if c in _NARROW else 0.92 if c in _WIDE else 0.68 if c.isupper() else 0.61 for c in text)
    return units * size * (1.08 if strong else 1.0)


def fitted(text: str, room: float, size: float, *, strong: bool = False) -> str:
    """The text, its end replaced by `…` where it is wider than `room`."""
    if width(text, size, strong=strong) <= room:
        return text
    while text and width(text + "…", size, strong=strong) > room:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""


def layer_numbers(numbers: Sequence[int]) -> str:
    """Rising numbers of layers in a few words: `layer 5`, `layers 0–7`, `layers 0, 6, … 18`, `9 layers, 0 … 50`."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) == 1:
        return f"layer {first}"
    steps = {b - a for a, b in pairwise(numbers)}
    if steps == {1}:
        return f"layers {first}–{last}"
    if len(numbers) <= 4:
        return "layers " + ", ".join(map(str, numbers))
    if len(steps) == 1:
        return f"layers {first}, {numbers[1]}, … {last}"
    return f"{len(numbers)} layers, {first} … {last}"


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, all of them: `0–7, 9, 11`."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def share(part: int, whole: int) -> str:
    """A part in per cent: `29.2 %`, `< 0.1 %`."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else "100 %" if part == whole else f"{percent:.1f} %"
