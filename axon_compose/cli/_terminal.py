"""What a command says, and where: results, diagnostics, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final

from axon_compose.cli._encoding import write_plainly
from axon_compose.cli._streams import note, put
from axon_compose.diagnostics import ArchitectureError, Diagnostic
from axon_compose.machine.terminal import columns
from axon_compose.report import Style, envelope, escape, render

__all__ = ["FAULTY", "OK", "USAGE", "Terminal"]

OK: Final = 0
FAULTY: Final = 1
USAGE: Final = 2


#: How long lines may be where there is no terminal.
_COLUMNS: Final = 100


class Terminal:
    """The two streams of a command.

    Args:
        command: Its name, for the JSON envelope.
        as_json: Print one JSON object instead of text.
    """

    def __init__(self, command: str, *, as_json: bool) -> None:
        self.command, self.as_json = command, as_json
        for stream in (sys.stdout, sys.stderr):
            write_plainly(stream, as_json=as_json)
        self.style = Style.of(sys.stdout)
        asked = sys.stdout.isatty() or "COLUMNS" in os.environ  # descriptor 1 may be that of standard error now
        self.width = columns(_COLUMNS) if asked else _COLUMNS

    def result(self, text: str, data: Any, diagnostics: Iterable[Diagnostic] = (), *, ok: bool = True) -> int:
        """Print what was found and return the code of the command."""
        put(envelope(self.command, ok=ok, result=data, diagnostics=diagnostics) if self.as_json else text)
        return OK if ok else FAULTY

    def part(self, text: str) -> None:
        """Print a part of the result as soon as it is known; as JSON, all comes at the end."""
        if not self.as_json:
            put(text, now=True)

    def note(self, text: str) -> None:
        """Print something beside the result."""
        note(text + "\n")

    def refuse(self, error: ArchitectureError) -> int:
        """Say why a file cannot be compiled."""
        if self.as_json:
            return self.result("", None, error.diagnostics, ok=False)
        text = render(error.diagnostics, error.sources, style=Style.of(sys.stderr), dropped=error.dropped)
        if text:
            self.note(text)
        return FAULTY

    def fail(self, diagnostic: Diagnostic, code: int = USAGE) -> int:
        """Say what went wrong outside of the file."""
        if self.as_json:
            self.result("", None, [diagnostic], ok=False)
        else:
            self.note(render([diagnostic], style=Style.of(sys.stderr)))
        return code

    def fail_with(self, message: str, help_: str | None = None) -> int:
        """Say in one line what the system answered, and what to do if that is known."""
        return self.fail(Diagnostic("AX500", message, help=help_))

    def progress(self, done: int, total: int, what: str = "writing weights") -> None:
        """Keep one line of a terminal up to date; elsewhere nothing is printed."""
        if not sys.stderr.isatty():
            return
        end = "\n" if done >= total else ""
        note(f"\r{what}: {done / max(total, 1):4.0%} of {total / 1e9:.2f} GB{end}")

    def race(self, ended: int, runs: int, part: float) -> None:
        """Say in one line of a terminal how far a stage of a race is."""
        if not sys.stderr.isatty():
            return
        note(f"\r\x1b[K{ended} of {runs} runs have ended, the others {part:.0%}" if ended < runs else "\r\x1b[K")

    def layers(self, done: int, number: int) -> None:
        """Say in one line of a terminal how many layers are done."""
        if sys.stderr.isatty():
            note(f"\r\x1b[K{done} of {number} layers" if done < number else "\r\x1b[K")

    def rounds(self, name: str, number: int, rounds: int) -> None:
        """Say in one line of a terminal what is measured; with no name, take it away."""
        if not sys.stderr.isatty():
            return
        what = f"measuring {escape(name)}, round {number} of {rounds}" if name else ""
        note(f"\r\x1b[K{what}")
