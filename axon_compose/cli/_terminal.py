"""What a command says, and where: results, diagnostics, progress."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Final, TextIO

from axon_compose.cli._encoding import write_plainly
from axon_compose.diagnostics import ArchitectureError, Diagnostic
from axon_compose.report import Form, Style, envelope, escape, render

__all__ = ["FAULTY", "INTERRUPTED", "OK", "USAGE", "Terminal"]

OK: Final = 0
FAULTY: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


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
        self.width = shutil.get_terminal_size((_COLUMNS, 24)).columns if asked else _COLUMNS

    def result(self, text: str, data: Any, diagnostics: Iterable[Diagnostic] = (), *, ok: bool = True) -> int:
        """Print what was found and return the code of the command."""
        sys.stdout.write(envelope(self.command, ok=ok, result=data, diagnostics=diagnostics) if self.as_json else text)
        return OK if ok else FAULTY

    def part(self, text: str) -> None:
        """Print a part of the result as soon as it is known; as JSON, all comes at the end."""
        if not self.as_json:
            sys.stdout.write(text)
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print something beside the result."""
        sys.stderr.write(text + "\n")

    def diagnostics(self, error: ArchitectureError, form: Form = "text", stream: TextIO | None = None) -> None:
        """Print the faults of a file."""
        stream = stream or sys.stderr
        text = render(error.diagnostics, error.sources, form, Style.of(stream), dropped=error.dropped)
        if text:
            stream.write(text + "\n")

    def refuse(self, error: ArchitectureError) -> int:
        """Say why a file cannot be compiled."""
        if self.as_json:
            return self.result("", None, error.diagnostics, ok=False)
        self.diagnostics(error)
        return FAULTY

    def fail(self, diagnostic: Diagnostic, code: int = USAGE) -> int:
        """Say what went wrong outside of the file."""
        if self.as_json:
            self.result("", None, [diagnostic], ok=False)
        else:
            self.note(render([diagnostic], style=Style.of(sys.stderr)))
        return code

    def fail_with(self, message: str) -> int:
        """Say in one line what the system answered."""
        return self.fail(Diagnostic("AX500", message))

    def progress(self, done: int, total: int, what: str = "writing weights") -> None:
        """Keep one line of a terminal up to date; elsewhere nothing is printed."""
        if not sys.stderr.isatty():
            return
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r{what}: {done / max(total, 1):4.0%} of {total / 1e9:.2f} GB{end}")
        sys.stderr.flush()

    def rounds(self, name: str, number: int, rounds: int) -> None:
        """Say in one line of a terminal what is measured; with no name, take it away."""
        if not sys.stderr.isatty():
            return
        what = f"measuring {escape(name)}, round {number} of {rounds}" if name else ""
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()
