"""`diff`: two files compared by what their models compute."""

from __future__ import annotations

import argparse

from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.diagnostics import ArchitectureError

__all__ = ["diff"]


def diff(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Show how the second model differs from the first; 1 if it does, 2 if either cannot be compiled."""
    from axon_compose.report._diff import diff_text

    try:
        a, b = (
            load_file(file, argparse.Namespace(settings=settings))
            for file, settings in ((arguments.a, arguments.settings_a), (arguments.b, arguments.settings_b))
        )
    except ArchitectureError as error:
        terminal.refuse(error)
        return USAGE
    found = a.diff(b)
    return terminal.result(diff_text(found, terminal.style), found.to_dict(), ok=found.equal)
