"""Boxes in characters: one line for each component, all in the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from axon_compose.report import Style
from axon_compose.report._cells import shorten
from axon_compose.report.draw._family import Family
from axon_compose.report.draw._words import share

__all__ = ["NARROW", "Columns", "Part"]

#: Columns that a box takes at least.
NARROW: Final = 48
#: Columns of shares, and of bars if they have all the room they want, or at least.
_SHARE: Final = 7
_BAR: Final = 10
_LEAST: Final = 4
_GAP: Final = "  "
#: Blanks around what is said.
_AROUND: Final = 4
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"

#: The nearest of the 256 colours of a terminal that can be read on light and on dark.
_COLOURS: Final[dict[Family, int]] = {
    "embedding": 168,
    "attention": 172,
    "window": 136,
    "recurrent": 68,
    "mixed": 37,
    "feed-forward": 71,
    "experts": 98,
    "block": 245,
    "norm": 245,
    "head": 167,
}


@dataclass(frozen=True)
class Part:
    """A component as a line.

    Attributes:
        name: As the file calls it.
        mark: How it joins the stream: `+` for what is added to it, `∥` for what stands beside the one above.
        type: Its type, if that is not its name.
        said: Its cache and notes, one below the other.
        size: Parameters in one layer, 0 if it has none of its own.
        times: Layers of its card.
        family: Whose colour it has.
    """

    name: str
    mark: str = ""
    type: str = ""
    said: Sequence[str] = ()
    size: int = 0
    times: int = 1
    family: Family | None = None


class Columns:
    """The columns of a picture: mark, name, type, cache and notes, parameters, share of all, bar.

    Args:
        parts: Everything that will stand in them.
        total: Parameters of the model.
        width: Columns of the terminal that boxes may take.
        style: Whether there are colours.
    """

    def __init__(self, parts: Sequence[Part], total: int, width: int, style: Style) -> None:
        self.total, self.style, self.width = total, style, width
        self.sizes = max(len(_size(part)) for part in parts)
        self.names = max(len(part.name) for part in parts)
        self.said = max((len(said) + _AROUND for part in parts for said in part.said), default=_AROUND)
        # What is said goes first, then bars, then types, since those that are cut say little; a short bar says enough.
        frame = len("│ + ") + len(" │") + self.sizes + len(_GAP) + _SHARE
        left = width - frame - self.names - self.said
        types = max(len(part.type) for part in parts) + len(_GAP)
        room = left - types if left - types >= _LEAST + len(_GAP) else left
        self.bar = min(_BAR, room - len(_GAP)) if room >= _LEAST + len(_GAP) else 0
        left -= self.bar + len(_GAP) if self.bar else 0
        self.types = types if len(_GAP) < types <= left else 0
        self.said = max(self.said + left - self.types, 0)
        self.names = min(self.names, width - frame - self.said)
        self.numbers = width - len(" │") - (len(_GAP) + self.bar if self.bar else 0) - _SHARE - len(_GAP)

    def box(self, title: str, size: str, parts: Sequence[Part]) -> Iterator[str]:
        """Parts in a box; its title stands at the left, its own size above theirs."""
        dim = self.style.dim
        title = shorten(title, self.numbers - len(size) - len("╭   "))
        fill = self.numbers - len(f"╭ {title} ") - len(f" {size}")
        rest = self.width - self.numbers - len(" ╮")
        yield f"{dim('╭')} {self.style.bold(title)} {dim('─' * fill)} {size} {dim('─' * rest + '╮')}"
        for part in parts:
            for line in self.lines(part):
                yield f"{dim('│')} {line} {dim('│')}"
        yield dim("╰" + "─" * (self.width - 2) + "╯")

    def bare(self, part: Part) -> Iterator[str]:
        """A part that stands on the stream itself, without a box."""
        for line in self.lines(part):
            yield f"  {line}".rstrip()

    def lines(self, part: Part) -> Iterator[str]:
        """A part, with one line for each thing that is said of it."""
        room = self.said - _AROUND
        words = [row for said in part.said for row in _rows(said, room)] if room > 0 else []
        for row, said in zip_longest(range(max(len(words), 1)), words, fillvalue=""):
            notes = f"{_GAP}{said}".ljust(self.said)
            if row:
                yield f"{'':{2 + self.names + self.types}}{notes}{self.figures(None)}"
                continue
            name = self.tinted(f"{shorten(part.name, self.names):<{self.names}}", part)
            type_ = self.style.dim(f"{_GAP}{part.type:<{self.types - len(_GAP)}}") if self.types else ""
            yield f"{part.mark:<2}{name}{type_}{notes}{self.figures(part)}"

    def figures(self, part: Part | None) -> str:
        """Parameters, share and bar; as many blanks without a part, or for one that has none."""
        size, whole = (_size(part), part.size * part.times) if part else ("", 0)
        portion = share(whole, self.total) if whole else ""
        text = f"{size:>{self.sizes}}{_GAP}{portion:>{_SHARE}}"
        if not self.bar:
            return text
        bar = f"{_blocks(whole, self.total, self.bar):<{self.bar}}"
        return f"{text}{_GAP}{self.tinted(bar, part) if part else bar}"

    def tinted(self, text: str, part: Part) -> str:
        """A text in the colour of a part's family."""
        return self.style.tint(text, _COLOURS[part.family]) if part.family else text


def _rows(said: str, room: int) -> Iterator[str]:
    """A text in lines that fit, broken after commas."""
    while len(said) > room and (at := said.rfind(", ", 0, room)) > 0:
        yield said[: at + 1]
        said = said[at + 2 :]
    yield shorten(said, room)


def _size(part: Part) -> str:
    return f"{part.size:,}" if part.size else ""


def _blocks(part: int, whole: int, width: int) -> str:
    """A bar of `width` characters for the whole, in eighths of them; what is there is never nothing."""
    eighths = max(part * width * 8 // whole, 1) if part else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
