"""The functions of formulas."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from axon_compose.language.document._text_error import quote
from axon_compose.language.document.formula._operations import (
    MAX_SIZE,
    OperationError,
    checked,
    describe,
    fits,
    is_number,
)

__all__ = ["call"]

_MAX_PLACES: Final = 100
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)


def call(function: str, arguments: Sequence[Any]) -> Any:
    """`function(*arguments)`; the number of arguments is right.

    Raises:
        OperationError: There is no value.
    """
    if function in _OF_NUMBERS:
        value = arguments[0]
        if not is_number(value):
            raise OperationError(f"`{function}` does not work on {describe(value)}", operand=0)
        checked(value, 0)
        return checked(_OF_NUMBERS[function](*arguments))
    return _FUNCTIONS[function](*arguments)


def _sqrt(value: Any) -> float:
    if value < 0:
        raise OperationError("`sqrt` of a negative number", operand=0)
    return math.sqrt(value)


def _log(value: Any) -> float:
    if value <= 0:
        raise OperationError("`log` of a number that is not positive", operand=0)
    return math.log(value)


def _len(value: Any) -> int:
    if not isinstance(value, str | list | tuple | Mapping):
        raise OperationError(f"`len` does not work on {describe(value)}", operand=0)
    return len(value)


def _extreme(function: str, *arguments: Any) -> Any:
    values: Sequence[Any] = arguments
    if len(arguments) == 1:
        if not isinstance(arguments[0], list | tuple):
            raise OperationError(f"`{function}` of one value takes a list, not {describe(arguments[0])}", operand=0)
        values = arguments[0]
    if not values:
        raise OperationError(f"`{function}` of an empty list", operand=0)
    if not (all(is_number(v) for v in values) or all(isinstance(v, str) for v in values)):
        kinds = list(dict.fromkeys(describe(v) for v in values))
        raise OperationError(f"`{function}` takes numbers or strings, not {' and '.join(kinds[:3])}")
    return min(values) if function == "min" else max(values)


def _ints(value: Any) -> list[int]:
    """The integers that a string lists, `"3,4,5"`."""
    if not isinstance(value, str):
        raise OperationError(f"`ints` does not work on {describe(value)}", operand=0)
    if len(value) > MAX_SIZE:
        raise OperationError(f"the string has more than {MAX_SIZE:,} characters", operand=0)
    parts = [part.strip() for part in value.split(",")] if value.strip() else []
    for part in parts:
        if not _INTEGER.fullmatch(part):
            raise OperationError(f"{quote(part)} is not an integer", "numbers are separated by commas", 0)
    return [int(part) for part in parts]


def _text(value: Any) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        raise OperationError(f"`text` takes an integer, not {describe(value)}", operand=0)
    return str(checked(value))


def _round(value: Any, places: Any = None) -> Any:
    if places is not None and (not isinstance(places, int) or isinstance(places, bool)):
        raise OperationError(f"`round` takes an integer number of places, not {describe(places)}", operand=1)
    if places is not None and abs(places) > _MAX_PLACES:
        raise OperationError(f"`round` takes at most {_MAX_PLACES} places", operand=1)
    try:
        return round(value, places)
    except OverflowError:
        raise OperationError("the result is too large") from None


def _sum(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise OperationError(f"`sum` takes a list, not {describe(value)}", operand=0)
    odd = next((item for item in value if not is_number(item)), 0)
    if not is_number(odd):
        raise OperationError(f"`sum` takes numbers, not {describe(odd)}", operand=0)
    return checked(sum(value))


def _range(*ends: Any) -> list[int]:
    """Whole numbers from 0, or from the first argument, up to and without the last one."""
    for number, end in enumerate(ends):
        if not isinstance(end, int) or isinstance(end, bool):
            raise OperationError(f"`range` takes integers, not {describe(end)}", operand=number)
    start, stop = ends if len(ends) == 2 else (0, ends[0])
    made: list[int] = fits(max(0, stop - start), lambda: list(range(start, stop)))
    return made


_OF_NUMBERS: Final[dict[str, Callable[..., Any]]] = {
    "ceil": math.ceil, "floor": math.floor, "round": _round, "sqrt": _sqrt, "log": _log,
}  # fmt: skip
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "min": partial(_extreme, "min"),
    "max": partial(_extreme, "max"),
    "len": _len,
    "sum": _sum,
    "ints": _ints,
    "range": _range,
    "text": _text,
    "is_list": lambda value: isinstance(value, list | tuple),
}
