"""`axon-compose`: results on stdout, everything else on stderr, and an exit code that says how it went."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from axon_compose.cli._missing import meant_instead
from axon_compose.cli._parser import make_parser
from axon_compose.cli._terminal import INTERRUPTED, USAGE, Terminal
from axon_compose.diagnostics import ArchitectureError, Refusal

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; those of the process unless given.

    Returns:
        0 if it went well, 1 if a file has errors or a check failed, 2 for wrong usage or a file that cannot be read or
        written, 130 when interrupted.
    """
    _open_streams()
    arguments = make_parser().parse_args(argv)
    terminal = Terminal(arguments.command, as_json=getattr(arguments, "json", False))
    try:
        code: int = arguments.run(arguments, terminal)
        sys.stdout.flush()
    except ArchitectureError as error:
        return terminal.refuse(error)
    except Refusal as error:
        return terminal.fail(error.diagnostic)
    except BrokenPipeError:
        # The reader went away (`… | head`): nothing is left to say, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USAGE
    except OSError as error:
        name = f"`{error.filename}`: " if error.filename else ""
        missing = isinstance(error, FileNotFoundError) and str(error.filename) in _files(arguments)
        help_ = meant_instead(str(error.filename)) if missing else None
        return terminal.fail_with(f"{name}{error.strerror or error}", help_)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _files(arguments: argparse.Namespace) -> list[str]:
    """Every FILE of a command."""
    given = [getattr(arguments, name, None) for name in ("file", "a", "b")]
    return [*filter(None, given), *getattr(arguments, "files", ())]


def _open_streams() -> None:
    """Give standard streams that are closed (`>&-`, some services) nothing to read and nowhere to write."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # open to the end of the process
