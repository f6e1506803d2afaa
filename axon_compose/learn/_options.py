"""Options as dataclass fields that carry their description and range, so that a command line can be made of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Final

__all__ = ["Range", "check", "option"]

_KEY: Final = "axon_compose"


@dataclass(frozen=True, slots=True)
class Range:
    """What an option may be.

    Attributes:
        summary: What it is, in a few words.
        least: The smallest number, or None.
        most: The largest number, or None.
        above: The number that it must be above, or None.
        choices: The texts that it may be; empty for numbers and flags, None for any text.
    """

    summary: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] | None = ()

    def fault(self, value: Any, default: Any) -> str | None:
        """What is wrong with a value, None if nothing is."""
        if self.choices is None:
            return None if isinstance(value, str) and _is_text(value) else "is not a text in UTF-8"
        if self.choices:
            return None if value in self.choices else f"is none of {', '.join(self.choices)}"
        if isinstance(default, bool):
            return None if isinstance(value, bool) else "is not true or false"
        kinds = (int,) if isinstance(default, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not isfinite(value):
            return "is not a whole number" if kinds == (int,) else "is not a number"
        if self.least is not None and value < self.least:
            return f"is below {self.least:g}"
        if self.above is not None and value <= self.above:
            return f"is not above {self.above:g}"
        return f"is above {self.most:g}" if self.most is not None and value > self.most else None


def _is_text(value: str) -> bool:
    """Whether it has no half of a surrogate pair, as bytes that are not UTF-8 have on a command line."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def option(default: Any, summary: str, **limits: Any) -> Any:
    """A field with a default, a description and the limits of `Range`."""
    return field(default=default, metadata={_KEY: Range(summary, **limits)})


def range_of(options: type, name: str) -> Range:
    """What a field says of itself."""
    found: Range = next(each for each in fields(options) if each.name == name).metadata[_KEY]
    return found


def check(options: Any) -> None:
    """Compare every field with its limits.

    Raises:
        ValueError: Naming the first field that is out of them.
    """
    for each in fields(options):
        if fault := each.metadata[_KEY].fault(getattr(options, each.name), each.default):
            raise ValueError(f"`{each.name}` {fault}: {getattr(options, each.name)!r}")
