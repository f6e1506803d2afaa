"""Numbers of layers as text, in the one notation that files, tables, pictures and messages share."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

__all__ = ["layer_numbers", "layer_ranges"]


def layer_ranges(layers: Iterable[int], most: int | None = None) -> str:
    """Layers as `overrides` takes them, both ends of a range included: `5`, `0..7`, `0..3, 8`.

    Args:
        layers: Their numbers, in any order.
        most: Where there is little room: of more ranges than these, only the first two and the last: `0, 6, … 48`.
    """
    numbers = sorted(set(layers))
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
    if most is None or len(parts) <= most:
        return ", ".join(parts)
    return f"{', '.join(parts[:2])}, … {parts[-1]}"


def layer_numbers(layers: Iterable[int], most: int | None = None) -> str:
    """The same with the word before it: `layer 5`, `layers 0..7`."""
    numbers = set(layers)
    return f"layer{'s' if len(numbers) > 1 else ''} {layer_ranges(numbers, most)}"
