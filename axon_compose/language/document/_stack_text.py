"""The text form of a stack: `absorb*8 (lin*3 local)*5`, read into a tree.

Nothing here expands a count: a stack of 10**12 layers is as quick as one of ten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from typing import Final

from axon_compose.language.document._stack_compress import compress
from axon_compose.language.document._text_error import TextError, character, quote
from axon_compose.record import record

__all__ = ["Group", "Stack", "StackError", "Term", "compress", "parse_stack"]

#: Longest text, in characters.
MAX_LENGTH: Final = 2**18
#: How deep groups may nest.
MAX_DEPTH: Final = 32
_MAX_DIGITS: Final = 18
_MAX_NAME: Final = 100

_TOKEN = re.compile(r"[A-Za-z0-9_.-]+|[()*]")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COUNT = re.compile(r"[1-9][0-9]*")
_SPACE = " \t\r\n"
_HINTS: Final = {
    ",": "separate layers by spaces",
    "[": "a group is written `(a b)*3`",
    "{": "a group is written `(a b)*3`",
    "=": "a generated stack is written `{layers: =…, block: […]}`",
}
_NAME_HINT: Final = "a name has lower-case letters, digits and `_`, and begins with a letter"
_COUNT_HINT: Final = "a count is a positive integer; for a computed one write the list form `[{block: a, repeat: =…}]`"


class StackError(TextError):
    """A stack text that cannot be read, or has too many layers."""


@record
class Term:
    """A block, `count` times; `start` and `end` are offsets of the name and its count."""

    name: str
    count: int
    start: int
    end: int

    def layers(self) -> int:
        """Number of layers that it stands for."""
        return self.count

    def expand(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Every layer, with the place of the term it comes from."""
        for _ in range(self.count):
            yield self.name, (self.start, self.end)

    def terms(self) -> Iterator[Term]:
        """Itself."""
        yield self


@record
class Group:
    """Terms and groups in parentheses, `count` times."""

    items: tuple[Item, ...]
    count: int
    start: int
    end: int

    def layers(self) -> int:
        """Number of layers that it stands for."""
        return self.count * sum(item.layers() for item in self.items)

    def expand(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Every layer, with the place of the term it comes from."""
        for _ in range(self.count):
            for item in self.items:
                yield from item.expand()

    def terms(self) -> Iterator[Term]:
        """Every term inside, once, in the order of the text."""
        for item in self.items:
            yield from item.terms()


Item = Term | Group


@record
class Stack:
    """A stack that was read.

    Attributes:
        text: As written.
        items: Terms and groups in order.
    """

    text: str
    items: tuple[Item, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def count(self) -> int:
        """Number of layers, exact, without expanding."""
        return sum(item.layers() for item in self.items)

    def uses(self) -> Iterator[Term]:
        """Every term as written, once, groups opened."""
        for item in self.items:
            yield from item.terms()

    def terms(self) -> list[tuple[str, int]]:
        """Text and number of layers of every outermost item."""
        return [(self.text[item.start : item.end], item.layers()) for item in self.items]

    def expand(self, limit: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """Every layer in order: the block's name, and the offsets of the term that names it.

        Raises:
            StackError: There are more than `limit` layers; raised at once, blames the item with the most.
        """
        total = self.count()
        if total > limit:
            worst = max(self.items, key=lambda item: item.layers())
            raise StackError(f"the stack has {total:,} layers, more than {limit:,}", worst.start, worst.end)
        return (layer for item in self.items for layer in item.expand())


def parse_stack(text: str) -> Stack:
    """Read a stack text: names, counts and groups, such as `absorb*8 (lin*3 local)*5`, separated by white space.

    Raises:
        StackError: It is none; says which characters are to blame, and what was expected.
    """
    if len(text) > MAX_LENGTH:
        raise StackError(f"the stack is longer than {MAX_LENGTH:,} characters", 0, len(text), "write runs as `name*3`")
    parser = _Parser(text)
    while parser.token:
        parser.step()
    return parser.finish()


@record
class _Token:
    """A name, a number or one of `()*`, and where it stands."""

    text: str
    start: int
    end: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
        elif match := _TOKEN.match(text, at):
            yield _Token(match[0], at, match.end())
            at = match.end()
        else:
            message = f"the character {character(text[at])} is not allowed in a stack"
            raise StackError(message, at, at + 1, _HINTS.get(text[at]))


class _Parser:
    """Reads item by item; `levels` holds the items of every group that is still open, the outermost first."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.at = 0
        self.levels: list[list[Item]] = [[]]
        self.opened: list[_Token] = []

    @property
    def token(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> _Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def step(self) -> None:
        token = self.take()
        if token.text == ")":
            return self.close(token)
        if token.text == "*":
            hint = "write `(a*2)*3`, or the product" if self.levels[-1] else "a count stands after a name: `a*3`"
            raise StackError(
                "a second `*`" if self.levels[-1] else "`*` without a name before it", token.start, token.end, hint
            )
        if token.start and self.text[token.start - 1] not in _SPACE + "(":
            raise StackError(f"a space is missing before {quote(token.text)}", token.start, token.end)
        if token.text == "(":
            return self.open(token)
        if token.text[0].isdigit():
            raise self.number(token)
        return self.name(token)

    def name(self, token: _Token) -> None:
        if not _NAME.fullmatch(token.text):
            raise StackError(f"{quote(token.text)} is not a name", token.start, token.end, _NAME_HINT)
        if len(token.text) > _MAX_NAME:
            raise StackError(f"a name has at most {_MAX_NAME} characters", token.start, token.end)
        count, end = self.count(token)
        self.levels[-1].append(Term(token.text, count, token.start, end))

    def open(self, token: _Token) -> None:
        if len(self.opened) == MAX_DEPTH:
            raise StackError(f"groups nest deeper than {MAX_DEPTH} levels", token.start, token.end)
        self.opened.append(token)
        self.levels.append([])

    def close(self, token: _Token) -> None:
        if not self.opened:
            raise StackError("`)` closes nothing", token.start, token.end)
        start, items = self.opened.pop().start, self.levels.pop()
        if not items:
            raise StackError("the group is empty", start, token.end)
        count, end = self.count(token)
        self.levels[-1].append(Group(tuple(items), count, start, end))

    def count(self, last: _Token) -> tuple[int, int]:
        """The count after the token `last`, 1 if there is none, and where the item ends."""
        if not self.token or self.token.text != "*":
            return 1, last.end
        star = self.take()
        number = self.token
        if not number or number.text in "()*":
            raise StackError("a count is missing after `*`", star.start, star.end, _COUNT_HINT)
        if not _COUNT.fullmatch(number.text):
            raise StackError(f"{quote(number.text)} is not a count", number.start, number.end, _COUNT_HINT)
        if len(number.text) > _MAX_DIGITS:
            raise StackError(f"a count has at most {_MAX_DIGITS} digits", number.start, number.end)
        return int(self.take().text), number.end

    def number(self, token: _Token) -> StackError:
        """The fault of a number that stands where a name was expected."""
        following = [t.text for t in self.tokens[self.at : self.at + 2]]
        if len(following) == 2 and following[0] == "*":
            group = following[1] == "("
            hint = f"write `{'(…)' if group else following[1]}*{token.text}`"
            what = "group" if group else "name"
            return StackError(f"the count comes after the {what}", token.start, self.tokens[self.at + 1].end, hint)
        before = self.levels[-1][-1] if self.levels[-1] else None
        example = before.name if isinstance(before, Term) else "a"
        hint = f"a count is written `{example}*{token.text}`" if _COUNT.fullmatch(token.text) else _NAME_HINT
        return StackError(f"expected a name, found {quote(token.text)}", token.start, token.end, hint)

    def finish(self) -> Stack:
        if self.opened:
            raise StackError("`(` is never closed", self.opened[-1].start, self.opened[-1].end, "add a `)`")
        if not self.levels[0]:
            raise StackError("the stack is empty", 0, len(self.text), "name at least one block")
        return Stack(self.text, tuple(self.levels[0]))
