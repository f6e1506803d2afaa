"""What the operators of formulas do with values: as Python, but typed strictly and bounded in size."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

from axon_compose.diagnostics import nearest
from axon_compose.language.document._text_error import quote
from axon_compose.language.document.formula._tokens import MAX_BITS

__all__ = [
    "MAX_SIZE",
    "OperationError",
    "arithmetic",
    "checked",
    "compare",
    "describe",
    "fits",
    "index",
    "is_number",
    "items",
    "sign",
    "weigh",
]

#: Most items and characters that a value may have, its parts included.
MAX_SIZE: Final = 100_000
_MAX_NESTING: Final = 64
#: What most values are: one part of no size.
_SCALARS: Final = frozenset((int, float, bool, type(None)))

_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

_KINDS: Final[dict[type, str]] = {
    bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list", tuple: "a list",
}  # fmt: skip


class OperationError(Exception):
    """An operation that has no result.

    Attributes:
        message: What is wrong.
        help: What to do, or None.
        operand: Which operand is to blame, from 0; None if all are.
    """

    def __init__(self, message: str, help: str | None = None, operand: int | None = None) -> None:  # noqa: A002
        super().__init__(message, help, operand)
        self.message, self.help, self.operand = message, help, operand


def describe(value: Any) -> str:
    """What kind of value it is, for a message."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a mapping"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def weigh(value: Any) -> int:
    """Count the parts of a value, itself included.

    Raises:
        OperationError: It has more than `MAX_SIZE` parts and characters, nests too deeply, or has a number that is
            not finite.
    """
    if type(value) in _SCALARS:
        checked(value)
        return 1
    parts, size, todo = 0, 0, [(value, 1)]
    while todo:
        part, depth = todo.pop()
        parts += 1
        size += max(1, len(part)) if isinstance(part, str) else 1
        if size > MAX_SIZE:
            raise OperationError(f"the result has more than {MAX_SIZE:,} parts")
        if depth > _MAX_NESTING:
            raise OperationError(f"the result nests deeper than {_MAX_NESTING} levels")
        if isinstance(part, Mapping):
            todo.extend((item, depth + 1) for item in part.values())
        elif isinstance(part, list | tuple):
            if depth < _MAX_NESTING and size + len(part) <= MAX_SIZE and set(map(type, part)) == {int}:
                checked(max(part))
                checked(min(part))
                parts, size = parts + len(part), size + len(part)
            else:
                todo.extend((item, depth + 1) for item in part)
        else:
            checked(part)
    return parts


def sign(symbol: str, value: Any) -> Any:
    """`-value` or `+value`."""
    if not is_number(value):
        raise OperationError(f"`{symbol}` does not work on {describe(value)}")
    return checked(-value if symbol == "-" else +value)


def arithmetic(symbol: str, a: Any, b: Any) -> Any:
    """`a + b` and so on. `/` of integers is an integer if the division is exact."""
    if symbol == "|" or not (is_number(a) and is_number(b)):
        return _joined(symbol, a, b)
    checked(a, 0)
    checked(b, 1)
    if b == 0 and symbol in ("/", "//", "%"):
        raise OperationError("division by zero", operand=1)
    try:
        if symbol == "**":
            return checked(_power(a, b))
        if symbol == "/":
            exact = isinstance(a, int) and isinstance(b, int) and a % b == 0
            return checked(a // b if exact else a / b)
        return checked(_ARITHMETIC[symbol](a, b))
    except OverflowError:
        raise OperationError("the result is too large") from None


def compare(symbol: str, a: Any, b: Any) -> bool:
    """`a < b` and so on, `in` and `not in` too. Equality takes any two values, order two numbers or two texts."""
    if symbol == "==":
        return bool(a == b)
    if symbol == "!=":
        return bool(a != b)
    if symbol == "in":
        return _contains(b, a)
    if symbol == "not in":
        return not _contains(b, a)
    if not (is_number(a) and is_number(b)) and not (isinstance(a, str) and isinstance(b, str)):
        raise OperationError(f"`{symbol}` does not compare {describe(a)} with {describe(b)}")
    return _ORDER[symbol](a, b)


def index(base: Any, key: Any) -> Any:
    """`base[key]` of a list, a text or a mapping; negative positions count from the end."""
    if isinstance(base, Mapping):
        if not _is_scalar(key):
            raise OperationError(f"{describe(key)} cannot be a key", operand=1)
        if key not in base:
            near = nearest(key, (k for k in base if isinstance(k, str))) if isinstance(key, str) else None
            raise OperationError(f"unknown key {_shown(key)}", f"did you mean `{near}`?" if near else _keys(base), 1)
        return base[key]
    if not isinstance(base, list | tuple | str):
        raise OperationError(f"{describe(base)} cannot be indexed", operand=0)
    if not isinstance(key, int) or isinstance(key, bool):
        raise OperationError(f"an index is an integer, not {describe(key)}", operand=1)
    if not -len(base) <= key < len(base):
        things = "character" if isinstance(base, str) else "item"
        count = f"there is 1 {things}" if len(base) == 1 else f"there are {len(base)} {things}s"
        raise OperationError(f"index {_shown(key)} is out of range: {count}", "indices start at 0", 1)
    return base[key]


def items(value: Any) -> list[Any]:
    """The items of a list, the characters of a text, or the keys of a mapping."""
    if not isinstance(value, str | list | tuple | Mapping):
        raise OperationError(f"{describe(value)} has no items", operand=0)
    return list(value)


def is_number(value: Any) -> bool:
    """Whether it is a number; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def checked(value: Any, operand: int | None = None) -> Any:
    """The value, if it is no number or one within bounds.

    Raises:
        OperationError: It is too large, or not finite.
    """
    if isinstance(value, float) and not isfinite(value):
        raise OperationError("the number is not finite", operand=operand)
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OperationError("the number is too large", f"integers have at most {MAX_BITS} bits", operand)
    return value


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return "(too large to print)"
    return quote(value if isinstance(value, str) else str(value))


def _keys(mapping: Mapping[Any, Any]) -> str:
    shown = [_shown(key) for key in list(mapping)[:8]]
    return f"the keys are {', '.join(shown)}{', …' if len(mapping) > 8 else ''}" if shown else "the mapping is empty"


def _power(a: Any, b: Any) -> Any:
    whole = isinstance(a, int) and isinstance(b, int)
    if a == 0 and b < 0:
        raise OperationError("division by zero: zero to a negative power")
    if whole and b > 0 and (abs(a).bit_length() - 1) * b > MAX_BITS:
        raise OverflowError
    if a < 0 and not float(b).is_integer():
        raise OperationError("a negative number to a fractional power is not real")
    return a**b


def _joined(symbol: str, a: Any, b: Any) -> Any:
    """`+` and `*` of texts and lists, `|` of mappings."""
    if symbol == "|" and isinstance(a, Mapping) and isinstance(b, Mapping):
        return fits(len(a) + len(b), lambda: {**a, **b})
    if symbol == "+" and (isinstance(a, str) and isinstance(b, str)):
        return fits(len(a) + len(b), lambda: a + b)
    if symbol == "+" and isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return fits(len(a) + len(b), lambda: [*a, *b])
    if symbol == "*":
        times, value = (a, b) if isinstance(a, int) else (b, a)
        if isinstance(times, int) and not isinstance(times, bool) and isinstance(value, str | list | tuple):
            repeated = value if isinstance(value, str) else list(value)
            return fits(len(value) * times, lambda: repeated * times if len(value) else repeated)
    truth = "write `1 if … else 0`" if isinstance(a, bool) or isinstance(b, bool) else None
    truth = "write `or` for a choice; `|` puts two mappings together" if symbol == "|" else truth
    raise OperationError(f"`{symbol}` does not work on {describe(a)} and {describe(b)}", truth)


def fits(size: int, make: Callable[[], Any]) -> Any:
    """A list or text that `make` makes, if it will have no more than so many parts.

    Raises:
        OperationError: It would be too large.
    """
    if size >= MAX_SIZE:  # the list itself is a part too
        raise OperationError(f"the result has more than {MAX_SIZE:,} parts")
    return make()


def _contains(collection: Any, value: Any) -> bool:
    if isinstance(collection, str) and not isinstance(value, str):
        raise OperationError(f"a string contains strings, not {describe(value)}", operand=0)
    if isinstance(collection, Mapping) and not _is_scalar(value):
        raise OperationError(f"{describe(value)} cannot be a key", operand=0)
    if not isinstance(collection, str | list | tuple | Mapping):
        raise OperationError(f"`in` searches a list, a string or a mapping, not {describe(collection)}", operand=1)
    return value in collection
