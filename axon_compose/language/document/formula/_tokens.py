"""From the text of a formula to its words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isinf
from typing import Any, Final, Literal

from axon_compose.language.document._text_error import character, quote
from axon_compose.language.document.formula._words import CONSTANTS, KEYWORDS, FormulaError
from axon_compose.record import record

__all__ = ["MAX_BITS", "MAX_LENGTH", "Token", "tokenize"]

#: Longest formula, in characters, the `=` included.
MAX_LENGTH: Final = 2000
#: No whole number in a formula may need more bits.
MAX_BITS: Final = 256
_MAX_NAME: Final = 100
_MAX_NUMBER: Final = 100

Kind = Literal["value", "name", "operator", "end"]

_DIGITS = r"[0-9](?:_?[0-9])*"
_NUMBER = re.compile(rf"(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GLUED = re.compile(r"[A-Za-z0-9_.]*")
_OPERATOR = re.compile(r"\*\*|//|==|!=|<=|>=|[-+*/%<>()\[\]{},:]|\|(?!\|)")
_FOREIGN = re.compile(r"&&?|\|\||[!=^?.$~@;]")
_SPACE = " \t\r\n"
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t"}

_HINTS: Final = {
    "&": "write `and`",
    "&&": "write `and`",
    "||": "write `or`",
    "!": "write `not`",
    "=": "`==` compares two values",
    "^": "a power is written `**`",
    "?": "write `a if condition else b`",
    ".": "there are no attributes; index a mapping with `name['key']`",
    "$": "write the name without `$`",
}


@record
class Token:
    """One word: a literal value, a name, an operator (keywords and brackets too) or the end."""

    kind: Kind
    value: Any
    start: int
    end: int

    def is_operator(self, *operators: str) -> bool:
        """Whether it is one of these operators."""
        return self.kind == "operator" and self.value in operators


def tokenize(text: str) -> list[Token]:
    """Split a formula into tokens, the last of kind `end`.

    Raises:
        FormulaError: It does not begin with `=`, is too long, or has characters that mean nothing.
    """
    if not text.startswith("="):
        raise FormulaError("a formula begins with `=`", 0, min(1, len(text)))
    if len(text) > MAX_LENGTH:
        raise FormulaError(
            f"the formula is longer than {MAX_LENGTH} characters", 0, len(text), "split it: `dims` may be formulas too"
        )
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    at = 1
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
            continue
        token = _token(text, at)
        yield token
        at = token.end
    yield Token("end", None, at, at)


def _token(text: str, at: int) -> Token:
    if text[at] in "'\"":
        return _quoted(text, at)
    if number := _NUMBER.match(text, at):
        return _number(text, at, number.end())
    if word := _WORD.match(text, at):
        return _word(word[0], at, word.end())
    if operator := _OPERATOR.match(text, at):
        return Token("operator", operator[0], at, operator.end())
    if foreign := _FOREIGN.match(text, at):
        raise FormulaError(f"`{foreign[0]}` is not allowed in a formula", at, foreign.end(), _HINTS.get(foreign[0]))
    raise FormulaError(f"the character {character(text[at])} is not allowed in a formula", at, at + 1)


def _word(word: str, start: int, end: int) -> Token:
    if len(word) > _MAX_NAME:
        raise FormulaError(f"a name has at most {_MAX_NAME} characters", start, end)
    if word in CONSTANTS:
        return Token("value", CONSTANTS[word], start, end)
    return Token("operator" if word in KEYWORDS else "name", word, start, end)


def _number(text: str, start: int, end: int) -> Token:
    glued = _GLUED.match(text, end)
    if glued and glued[0]:
        end = glued.end()
        raise FormulaError(f"{quote(text[start:end])} is not a number", start, end)
    digits = text[start:end]
    if len(digits) > _MAX_NUMBER:
        raise FormulaError(f"a number has at most {_MAX_NUMBER} characters", start, end)
    if not digits.replace("_", "").isdigit():
        value = float(digits)
        if isinf(value):
            raise FormulaError(f"{quote(digits)} is too large a number", start, end)
        return Token("value", value, start, end)
    if digits[0] == "0" and digits.strip("0_"):
        raise FormulaError(f"{quote(digits)} begins with a zero", start, end, f"write `{digits.lstrip('0_')}`")
    whole = int(digits)
    if whole.bit_length() > MAX_BITS:
        raise FormulaError(f"{quote(digits)} is too large a number", start, end)
    return Token("value", whole, start, end)


def _quoted(text: str, start: int) -> Token:
    mark, at, parts = text[start], start + 1, []
    while at < len(text) and text[at] != mark:
        char = text[at]
        if char == "\\":
            at += 1
            char = _ESCAPES.get(text[at : at + 1], "")
            if not char:
                raise FormulaError(
                    "unknown escape in a string", at - 1, min(at + 1, len(text)), "a backslash is written `\\\\`"
                )
        elif not char.isprintable():
            raise FormulaError(f"the character {character(char)} is not allowed in a string", at, at + 1)
        parts.append(char)
        at += 1
    if at >= len(text):
        raise FormulaError("the string is never closed", start, len(text), f"close it with `{mark}`")
    return Token("value", "".join(parts), start, at + 1)
