"""The small language of tensor names: `model.layers.<l>.(attn|self_attn)`, and the targets that rules map them to.

A pattern is read once into parts, and compiled to one regular expression for the first name that it is compared with,
since a checkpoint may have a hundred thousand names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cached_property, lru_cache
from itertools import pairwise, product, zip_longest
from math import prod
from typing import Final, NamedTuple

from axon_compose.language.document._text_error import TextError, character, quote
from axon_compose.record import record

__all__ = ["Capture", "NameMatch", "Pattern", "PatternError", "Target", "parse_pattern", "parse_target"]

_MAX_LENGTH: Final = 500
#: No tensor has such a name.
_MAX_NAME: Final = 500
#: Texts that all alternatives of a pattern stand for, and captures that can end in several places of a name. With these
#: and short names a regular expression that goes back and tries again ends within milliseconds, whatever the name.
_MAX_SPELLINGS: Final = 64
_MAX_LOOSE: Final = 2
#: A number as names have it, in one spelling.
_NUMBER: Final = "(?:0|[1-9][0-9]{0,8})"
_PART: Final = re.compile(r"<(?P<capture>[^<>()|]*)>|\((?P<choice>[^()]*)\)|(?P<text>[^<>()|?]+)")
_CAPTURE: Final = re.compile(r"(?P<name>[a-z][a-z0-9_]{0,99})(?P<int>:int)?")
_HINTS: Final = {
    "<": "a capture is written `<name>`",
    ">": "a capture is written `<name>`",
    "(": "alternatives are written `(a|b)`",
    ")": "alternatives are written `(a|b)`",
    "|": "alternatives are written `(a|b)`",
    "?": "`?` stands at the end of a target",
}


class PatternError(TextError):
    """A pattern or a target that cannot be read."""


class Capture(NamedTuple):
    """One part of a name or a piece of it; offsets are those of the text.

    `<name>` is any text without a dot, `<name:int>` a number as indices are written, `<*>` any text.
    """

    name: str
    start: int
    end: int
    number: bool = False

    @property
    def wild(self) -> bool:
        """Whether it is `<*>`, which keeps nothing."""
        return self.name == "*"


class _Choice(NamedTuple):
    """`(a|b)`."""

    options: tuple[str, ...]


_Part = str | Capture | _Choice


class NameMatch(NamedTuple):
    """What a name has at the captures, and what follows the pattern: empty, or a dot and more."""

    captures: Mapping[str, str]
    rest: str


@record
class Pattern:
    """A pattern that was read.

    Attributes:
        text: As written.
        parts: Literal text, captures and alternatives in order.
        literals: Number of literal characters; of alternatives those of the shortest.
    """

    text: str
    parts: tuple[_Part, ...] = field(repr=False)
    literals: int

    def __str__(self) -> str:
        return self.text

    @cached_property
    def captures(self) -> tuple[Capture, ...]:
        """Every capture as written, `<*>` too."""
        return tuple(part for part in self.parts if isinstance(part, Capture))

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the captures, without `<*>`."""
        return frozenset(capture.name for capture in self.captures if not capture.wild)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Names of the captures that are written `<name:int>`."""
        return frozenset(capture.name for capture in self.captures if capture.number)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        """Compiled for the first name, since who only validates a file has none."""
        return _expression(self.parts)

    def match(self, name: str) -> NameMatch | None:
        """Compare with a whole name, or with the part of it before a dot."""
        found = self._expression.fullmatch(name) if len(name) <= _MAX_NAME else None
        if found is None:
            return None
        groups = found.groupdict()
        return NameMatch(groups, groups.pop("_rest"))

    def spellings(self, captures: Mapping[str, str]) -> Iterator[str]:
        """The texts that the pattern stands for, one for each choice of alternatives, the first ones first.

        Raises:
            KeyError: A capture has no value.
        """
        options = [
            (part,) if isinstance(part, str) else (captures[part.name],) if isinstance(part, Capture) else part.options
            for part in self.parts
        ]
        return ("".join(texts) for texts in product(*options))


@record
class Target(Pattern):
    """Where a tensor goes: a pattern whose captures come from elsewhere.

    Attributes:
        optional: It ended with `?`: a model without that place drops the tensor.
    """

    optional: bool = False


@lru_cache(maxsize=4096)
def parse_pattern(text: str) -> Pattern:
    """Read a pattern of tensor names.

    Raises:
        PatternError: It is none; says which characters are to blame.
    """
    parts = tuple(_parts(text))
    return Pattern(text, parts, _literals(parts))


@lru_cache(maxsize=4096)
def parse_target(text: str, numbers: frozenset[str] = frozenset()) -> Target:
    """Read a target.

    Args:
        text: As written.
        numbers: Captures that are numbers, as the pattern of the rule says.

    Raises:
        PatternError: It is none; says which characters are to blame.
    """
    optional = text.endswith("?")
    parts = tuple(_parts(text.removesuffix("?")))
    for part in parts:
        if isinstance(part, Capture) and part.wild:
            raise PatternError("`<*>` captures no text for a target", part.start, part.end, "capture it by a name")
        if isinstance(part, Capture) and part.number:
            raise PatternError(
                f"`<{part.name}:int>` in a target", part.start, part.end, f"write `<{part.name}>`: the pattern says int"
            )
    parts = tuple(part._replace(number=part.name in numbers) if isinstance(part, Capture) else part for part in parts)
    return Target(text, parts, _literals(parts), optional)


def _parts(text: str) -> Iterator[_Part]:
    if not text:
        raise PatternError("the text is empty", 0, 0, "write a name of a tensor, or its beginning up to a dot")
    if len(text) > _MAX_LENGTH:
        raise PatternError(f"longer than {_MAX_LENGTH} characters", 0, len(text))
    if text.startswith("="):
        hint = "only captures differ; a choice among rules is made by `when`"
        raise PatternError("the name of a tensor is not a formula", 0, 1, hint)
    found: list[_Part] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise PatternError(f"unexpected {character(text[at])}", at, at + 1, _HINTS[text[at]])
        found.append(_part(match))
        at = match.end()
    if text.endswith("."):
        raise PatternError(
            "a dot at the end", len(text) - 1, len(text), "leave it out: the rest of the name is carried over"
        )
    _check_borders(found)
    _check_choices(found, len(text))
    yield from found


def _part(match: re.Match[str]) -> _Part:
    start, end = match.span()
    if (name := match["capture"]) is not None:
        capture = _CAPTURE.fullmatch(name)
        if capture is None and name != "*":
            hint = "lower-case letters, digits and `_`, a letter first; `<l:int>` for a number, `<*>` for any text"
            raise PatternError(f"{quote(name)} cannot be the name of a capture", start, end, hint)
        return Capture(capture["name"], start, end, bool(capture["int"])) if capture else Capture(name, start, end)
    if (choice := match["choice"]) is not None:
        options = tuple(choice.split("|"))
        if any(char in choice for char in "<>?") or len(set(options)) != len(options) or len(options) < 2:
            raise PatternError("alternatives are two or more different texts", start, end, "write `(a|b)`")
        return _Choice(options)
    return match["text"]


def _check_borders(parts: list[_Part]) -> None:
    for one, other in pairwise(parts):
        if isinstance(one, Capture) and isinstance(other, Capture):
            message = f"it is ambiguous where `<{one.name}>` ends and `<{other.name}>` begins"
            raise PatternError(message, one.start, other.end)


def _check_choices(parts: list[_Part], length: int) -> None:
    """Refuse what could be read in so many ways that trying them would not end."""
    spellings = prod(len(part.options) for part in parts if isinstance(part, _Choice))
    if spellings > _MAX_SPELLINGS:
        message = f"the alternatives expand to {spellings:,} names, more than {_MAX_SPELLINGS}"
        raise PatternError(message, 0, length, "write several rules")
    loose = [
        part
        for part, after in zip_longest(parts, parts[1:])
        if isinstance(part, Capture) and (part.wild or not (after is None or _begins_with_dot(after)))
    ]
    if len(loose) > _MAX_LOOSE:
        message = f"more than {_MAX_LOOSE} captures not ended by a dot"
        raise PatternError(message, loose[0].start, loose[-1].end, "let a capture reach up to a dot")


def _begins_with_dot(part: _Part) -> bool:
    return isinstance(part, str) and part.startswith(".")


def _literals(parts: tuple[_Part, ...]) -> int:
    count = 0
    for part in parts:
        if isinstance(part, str):
            count += len(part)
        elif isinstance(part, _Choice):
            count += min(len(option) for option in part.options)
    return count


def _expression(parts: tuple[_Part, ...]) -> re.Pattern[str]:
    """The parts, then the group `_rest`: empty, or a dot and what follows it."""
    text, seen = "", set[str]()
    for part in parts:
        if isinstance(part, str):
            text += re.escape(part)
        elif isinstance(part, _Choice):
            text += f"(?:{'|'.join(map(re.escape, part.options))})"
        elif part.wild:
            text += ".*"
        else:
            body = _NUMBER if part.number else "[^.]+"
            text += f"(?P={part.name})" if part.name in seen else f"(?P<{part.name}>{body})"
            seen.add(part.name)
    return re.compile(rf"{text}(?P<_rest>(?:\..*)?)", re.DOTALL)
