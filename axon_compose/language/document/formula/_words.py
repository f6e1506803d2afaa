"""What formulas have words for, and how they fail: all that a file without formulas needs of them."""

from __future__ import annotations

from typing import Any, Final, Literal

from axon_compose.language.document._text_error import TextError

__all__ = ["CONSTANTS", "FUNCTIONS", "KEYWORDS", "RESERVED", "FormulaError", "Meter", "is_formula"]

CONSTANTS: Final[dict[str, Any]] = {
    "true": True, "false": False, "null": None, "True": True, "False": False, "None": None,
}  # fmt: skip
KEYWORDS: Final = frozenset({"and", "or", "not", "in", "if", "else", "for"})
#: Functions and how many values each takes, at least and at most.
FUNCTIONS: Final[dict[str, tuple[int, int | None]]] = {
    "min": (1, None), "max": (1, None), "ceil": (1, 1), "floor": (1, 1), "round": (1, 2), "sqrt": (1, 1), "len": (1, 1),
    "ints": (1, 1), "log": (1, 1), "sum": (1, 1), "range": (1, 2), "is_list": (1, 1), "at": (2, 2),
    "text": (1, 1),
}  # fmt: skip
#: Words that cannot be names of values, because a formula gives them a meaning of their own.
RESERVED: Final = KEYWORDS | CONSTANTS.keys() | FUNCTIONS.keys()


def is_formula(value: object) -> bool:
    """Whether a value of a description is a formula: a text that begins with `=`."""
    return isinstance(value, str) and value.startswith("=")


class Meter:
    """Adds up the steps of many evaluations.

    Attributes:
        steps: Their sum so far.
    """

    def __init__(self) -> None:
        self.steps = 0


class FormulaError(TextError):
    """A formula that cannot be read or computed; offsets count from the `=`.

    Attributes:
        origin: Of a failed look-up what is to blame, where that is a part of a named value: the name, then keys and
            positions.
        missing: What that is: a `key` that a mapping does not have, a list without a certain `item`, or a value that
            has no `items` at all.
    """

    def __init__(
        self,
        message: str,
        start: int,
        end: int,
        help: str | None = None,  # noqa: A002
        origin: tuple[str | int, ...] | None = None,
        missing: Literal["key", "item", "items"] | None = None,
    ) -> None:
        super().__init__(message, start, end, help)
        self.origin, self.missing = origin, missing
