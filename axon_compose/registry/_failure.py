"""A name that the registry cannot give a component for, as data that a later stage can put a place to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from axon_compose.diagnostics import Diagnostic, Refusal, nearest

__all__ = ["LookupFailure", "one_line", "suggestion"]

_LONGEST_LIST: Final = 8
_LONGEST_CAUSE: Final = 300


class LookupFailure(Refusal):
    """What was asked for cannot be had.

    Attributes:
        code: `AX201` unknown plugin, `AX202` unknown component, `AX203` plugin failed, `AX204` two distributions
            claim one namespace, `AX205` plugin disabled, `AX207` no default of a kind, `AX209` unknown architecture,
            `AX210` not the name of a type, `AX901` unknown task.
        message: What is wrong, one line.
        label: What to say beside the place.
        help: What to do, or None.
    """

    faulty = True

    def __init__(self, code: str, message: str, label: str = "", help: str | None = None) -> None:  # noqa: A002
        super().__init__(code, message, help)
        self.label = label

    def __str__(self) -> str:
        return " - ".join([self.diagnostic.message, *([self.help] if self.help else [])])

    @property
    def diagnostic(self) -> Diagnostic:
        """The same fault as a record, for a place that is in no file."""
        return Diagnostic(self.code, f"{self.message}: {self.label}" if self.label else self.message, help=self.help)


def suggestion(name: str, candidates: Iterable[str], what: str) -> str | None:
    """Help for a wrong name: the nearest right one, else all of them; None if there are none.

    Args:
        name: The name as written.
        candidates: The names that are right.
        what: What the names are, in the plural, e.g. `options of `moe``.
    """
    names = list(candidates)
    if match := nearest(name, names):
        return f"did you mean `{match}`?"
    if not names:
        return None
    listed = ", ".join(f"`{n}`" for n in names[:_LONGEST_LIST])
    more = len(names) - _LONGEST_LIST
    return f"{what}: {listed}" + (f" and {more} more" if more > 0 else "")


def one_line(error: BaseException) -> str:
    """An exception as one printable line of bounded length, whatever its own text does."""
    try:
        text = str(error)
    except BaseException as worse:
        text = f"its text cannot be had, for that raises {type(worse).__name__}"
    name, text = map(_printable, (type(error).__name__, text))
    whole = f"{name}: {text}" if text else name
    return whole if len(whole) <= _LONGEST_CAUSE else whole[: _LONGEST_CAUSE - 1] + "…"


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
