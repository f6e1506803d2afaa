"""What a plain scalar means: the core schema of YAML 1.2, nothing of 1.1.

`on`, `yes`, `12:30` and `1_000` are text, `1e-6` is a number, `0o17` is octal and `010` is ten.
Source: YAML 1.2.2, section 10.3.2.
"""

from __future__ import annotations

import math
import re
from typing import Final

from axon_compose.language.source._nodes import Value

__all__ = ["MAX_DIGITS", "NumberFault", "is_text", "resolve"]

#: Longer integers are mistakes, and Python refuses to convert those beyond 4300 digits.
MAX_DIGITS: Final = 40

_CONSTANTS: Final[dict[str, Value]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MAY_START_NUMBER: Final = frozenset("0123456789+-.")


class NumberFault(ValueError):
    """A number that no machine number can hold; the message says why."""


def resolve(text: str) -> Value:
    """Return the value of a plain scalar.

    Raises:
        NumberFault: An integer of more than `MAX_DIGITS` digits, or a float beyond the range of float64.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _MAY_START_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if not _FLOAT.fullmatch(text):
        return text
    value = float(text)
    if math.isinf(value):
        raise NumberFault("a number too large for float64")
    return value


def is_text(text: str) -> bool:
    """Whether the plain scalar `text` reads as a text."""
    try:
        return isinstance(resolve(text), str)
    except NumberFault:
        return False


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    digits = text[2:] if base != 10 else text.lstrip("+-")
    if len(digits) > MAX_DIGITS:
        raise NumberFault(f"an integer of {len(digits)} digits")
    return int(digits if base != 10 else text, base)
