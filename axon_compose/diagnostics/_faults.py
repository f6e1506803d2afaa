"""Faults in a file, as data: a span, a code, a message, notes and help.

Every stage takes a `Problems` collector, reports into it and goes on, so that one run names every fault.
`Problems.raise_if_any` ends the run. Rendering is the business of `axon_compose.report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple, TypeVar

from axon_compose.record import record

__all__ = [
    "ArchitectureError",
    "CheckpointError",
    "Diagnostic",
    "Flood",
    "Label",
    "Position",
    "Problems",
    "Refusal",
    "Span",
    "nearest",
]

Severity = Literal["error", "warning"]

#: More faults than this are counted, not kept: a broken generator must not fill the terminal.
MAX_PROBLEMS: Final = 200
#: A stage that goes on after so many more is ended (`Flood`).
MAX_DROPPED: Final = 2000
#: Characters of a message, a label or a help: a name of a megabyte must not be printed two hundred times.
_LONGEST_TEXT: Final = 1000
#: Names that a misspelt one is compared with, of those whose length is nearest.
_MAX_SEEN: Final = 2000
_MAX_COMPARED: Final = 100
#: Codes before this one are the reader's: the text itself is faulty.
_FIRST_JUDGEMENT: Final = "AX03"


class Position(NamedTuple):
    """A place in a text; `line` and `column` start at 1, columns count characters."""

    line: int
    column: int


@record
class Span:
    """A stretch of a file, from `start` up to but not including `end`."""

    file: str
    start: Position
    end: Position

    def __str__(self) -> str:
        return f"{self.file}:{self.start.line}:{self.start.column}"


@record
class Label:
    """A second place that explains the first, such as where a name was defined before."""

    span: Span
    text: str


@record
class Diagnostic:
    """One fault.

    Attributes:
        code: Stable identifier, `AX` and three digits; `axon-compose explain CODE` explains it.
        message: What is wrong: one line, lower case, no full stop, names in backticks.
        span: Where; `None` when no place in a file is to blame.
        label: What the caret says, beside the excerpt.
        help: What to do, e.g. the nearest valid name.
        labels: Further places.
        details: Lines below the message, such as the tensors that are missing.
        severity: An `error` stops the build, a `warning` does not.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    help: str | None = None
    labels: tuple[Label, ...] = ()
    details: tuple[str, ...] = ()
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"{self.span}: " if self.span else ""
        return f"{where}{self.severity}[{self.code}]: {self.message}"


class ArchitectureError(Exception):
    """A description that cannot be compiled; carries every fault that was found.

    Attributes:
        diagnostics: The faults, in file order.
        sources: Text of every file that a span may name, for excerpts.
        dropped: How many further faults were counted and not kept.
    """

    def __init__(
        self, diagnostics: Iterable[Diagnostic], sources: dict[str, str] | None = None, dropped: int = 0
    ) -> None:
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources or {})
        self.dropped = dropped
        super().__init__("\n".join(str(d) for d in self.diagnostics))


class Refusal(Exception):
    """Something that cannot be done for a reason outside of the description, such as a full disk.

    Attributes:
        code: Stable identifier, e.g. `AX501`.
        message: What is wrong: lower case, no full stop, names in backticks.
        help: What to do, or None.
        details: Lines below the message.
        faulty: Whether the model is at fault, as where a file has errors; else a folder, a disk or a machine is.
    """

    faulty = False

    def __init__(
        self,
        code: str,
        message: str,
        help: str | None = None,  # noqa: A002 (as in `Diagnostic`)
        details: Iterable[str] = (),
    ) -> None:
        self.details = tuple(details)
        super().__init__(code, message, help, self.details)
        self.code = code
        self.message = message
        self.help = help

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.message}", *(f"    {line}" for line in self.details)]
        return "\n".join([*lines, f"  = help: {self.help}"] if self.help else lines)

    @property
    def diagnostic(self) -> Diagnostic:
        """The same fault as a record, for the renderer."""
        return Diagnostic(self.code, self.message, help=self.help, details=self.details)


class CheckpointError(Refusal):
    """A folder that cannot be written or read, or a model that does not fit into memory."""


class Flood(Exception):
    """So many faults that the rest does not matter; ends a stage, which catches it."""


class Problems:
    """Collects faults while the stages run.

    Attributes:
        sources: File name to text, filled by the readers; the renderer cuts excerpts from it.
    """

    def __init__(self, sources: dict[str, str] | None = None) -> None:
        self.sources = {} if sources is None else sources
        self.dropped = 0
        self._found: dict[Diagnostic, None] = {}
        self._unread: set[tuple[str, Position]] = set()

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.sorted())

    def __len__(self) -> int:
        return len(self._found)

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep a fault, once; later stages' faults at a place that could not be read are dropped.

        Raises:
            Flood: After two thousand faults that were counted and not kept.
        """
        place = (diagnostic.span.file, diagnostic.span.start) if diagnostic.span else None
        judged = diagnostic.code >= _FIRST_JUDGEMENT
        if diagnostic in self._found or (judged and place in self._unread):
            return
        if len(self._found) >= MAX_PROBLEMS:
            self.dropped += 1
            if self.dropped >= MAX_DROPPED:
                raise Flood
            return
        self._found[diagnostic] = None
        if place and not judged:
            self._unread.add(place)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        label: str = "",
        help: str | None = None,  # noqa: A002 (as in `Diagnostic`)
        labels: Iterable[Label] = (),
    ) -> None:
        """Report an error; see `Diagnostic` for the meaning of the arguments."""
        self.add(Diagnostic(code, _short(message), span, _short(label), _short(help), tuple(labels)))

    def warning(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        label: str = "",
        help: str | None = None,  # noqa: A002 (as in `Diagnostic`)
    ) -> None:
        """Report something that does not stop the build."""
        self.add(Diagnostic(code, _short(message), span, _short(label), _short(help), severity="warning"))

    def nearest(self, name: str, candidates: Iterable[str]) -> str | None:
        """As the function `nearest`, without an answer when the fault that it would help is not kept."""
        return nearest(name, candidates) if len(self._found) < MAX_PROBLEMS else None

    @property
    def failed(self) -> bool:
        """Whether any error was reported."""
        return any(d.severity == "error" for d in self._found)

    def sorted(self) -> list[Diagnostic]:
        """The faults in file order; those without a place come last."""

        def order(d: Diagnostic) -> tuple[bool, str, Position]:
            return (d.span is None, d.span.file if d.span else "", d.span.start if d.span else Position(0, 0))

        return sorted(self._found, key=order)

    def raise_if_any(self) -> None:
        """Raise `ArchitectureError` if an error was reported."""
        if self.failed:
            raise ArchitectureError(self.sorted(), self.sources, self.dropped)


_Text = TypeVar("_Text", str, str | None)


def _short(text: _Text) -> _Text:
    return text if text is None or len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` was probably meant to be, or None."""
    from difflib import get_close_matches  # files without faults need none

    if len(name) > _LONGEST_TEXT:
        return None
    compared = list(islice(candidates, _MAX_SEEN))
    if len(compared) > _MAX_COMPARED:
        compared = sorted(compared, key=lambda candidate: abs(len(candidate) - len(name)))[:_MAX_COMPARED]
    found = get_close_matches(name, compared, n=1, cutoff=0.6)
    return found[0] if found else None
