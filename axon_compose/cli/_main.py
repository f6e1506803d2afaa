"""`axon-compose`: results on stdout, everything else on stderr, and an exit code that says how it went."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from axon_compose.cli._missing import meant_instead
from axon_compose.cli._parser import make_parser
from axon_compose.cli._ranks import one_voice, speaking, together
from axon_compose.cli._streams import OutputError, give_up, open_streams, put
from axon_compose.cli._terminal import FAULTY, USAGE, Terminal
from axon_compose.diagnostics import ArchitectureError, Refusal
from axon_compose.machine.interrupts import INTERRUPTED
from axon_compose.machine.output import results_alone

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; those of the process unless given.

    Returns:
        0 if it went well, 1 if a file has errors or a check failed, 2 for wrong usage or a file that cannot be read or
        written, 130 when interrupted.
    """
    open_streams()
    try:
        with one_voice(argv), results_alone(to_the_end=argv is None):
            code = _run(argv)
            put("", now=True)
    except OutputError as error:
        give_up(error)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(argv: Sequence[str] | None) -> int:
    arguments = make_parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    terminal = Terminal(arguments.command, as_json=getattr(arguments, "json", False))
    try:
        with together(arguments.command):
            code: int = arguments.run(arguments, terminal)
    except ArchitectureError as error:
        return terminal.refuse(error)
    except Refusal as error:
        with speaking(error):
            return terminal.fail(error.diagnostic, FAULTY if error.faulty else USAGE)
    except OSError as error:
        name = f"`{error.filename}`: " if error.filename else ""
        missing = isinstance(error, FileNotFoundError) and str(error.filename) in _files(arguments)
        help_ = meant_instead(str(error.filename)) if missing else None
        return terminal.fail_with(f"{name}{error.strerror or error}", help_)
    return code


def _files(arguments: argparse.Namespace) -> list[str]:
    """Every FILE of a command."""
    given = [getattr(arguments, name, None) for name in ("file", "a", "b")]
    return [*filter(None, given), *getattr(arguments, "files", ())]
