"""Which layers an edit is about: numbers, ranges with steps, lists of them, and what formulas give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["SelectionError", "one_layer", "select"]

_PART: Final = re.compile(
    r"(?P<first>-?[0-9]{1,6})(?:\s*\.\.\s*(?P<last>-?[0-9]{1,6})(?:\s+step\s+(?P<step>[0-9]{1,6}))?)?"
)
_HINT: Final = "write `8`, `8..22` with both ends, `8..22 step 2`, `-1` for the last one, a list of them, or `all`"


class SelectionError(ValueError):
    """What selects no layers.

    Attributes:
        code: Of the diagnostic: AX921 it is no selection, AX922 there is no such layer.
        help: What to write.
    """

    def __init__(self, code: str, message: str, help_: str) -> None:
        super().__init__(message)
        self.code, self.help = code, help_


def select(written: Any, count: int) -> list[int]:
    """The layers that a selection means, rising, each once.

    Args:
        written: As in the file, formulas computed: a number, a text, or a list of both.
        count: How many layers there are.

    Raises:
        SelectionError: AX921, AX922.
    """
    found = set(_layers(written, count))
    if not found:
        raise SelectionError("AX921", "this selects no layer", _HINT)
    return sorted(found)


def one_layer(written: Any, count: int) -> int:
    """The one layer that is meant.

    Raises:
        SelectionError: AX921 it is none or several; AX922.
    """
    found = select(written, count)
    if len(found) > 1:
        raise SelectionError("AX921", f"`{written}` is {len(found)} layers, and one is needed here", "name one layer")
    return found[0]


def _layers(written: Any, count: int) -> Iterator[int]:
    match written:
        case bool() | None:
            raise SelectionError("AX921", f"`{written}` is no layer", _HINT)
        case int():
            yield _number(written, count)
        case str() if written.strip() == "all":
            yield from range(count)
        case str():
            for part in written.split(","):
                yield from _part(part.strip(), count)
        case list():
            for part in written:
                yield from _layers(part, count)
        case _:
            raise SelectionError("AX921", f"`{written!r:.80}` is no layer", _HINT)


def _part(text: str, count: int) -> Iterator[int]:
    match = _PART.fullmatch(text)
    if match is None:
        raise SelectionError("AX921", f"`{text:.80}` is neither a layer nor a range of layers", _HINT)
    first = _number(int(match["first"]), count)
    if match["last"] is None:
        yield first
        return
    last, step = _number(int(match["last"]), count), int(match["step"] or 1)
    if step < 1:
        raise SelectionError("AX921", f"a step of {step} goes nowhere", "a step is 1 or more")
    if last < first:
        raise SelectionError("AX921", f"`{text}` ends before it begins", f"write `{match['last']}..{match['first']}`")
    yield from range(first, last + 1, step)


def _number(number: int, count: int) -> int:
    index = number + count if number < 0 else number
    if not 0 <= index < count:
        raise SelectionError("AX922", f"there is no layer {number}", f"there are layers 0..{count - 1}")
    return index
