"""`lint`: advice on a file that is right."""

from __future__ import annotations

import argparse

from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import Terminal
from axon_compose.report import as_dicts, render

__all__ = ["lint"]


def lint(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Report what is valid but suspicious; advice is not a failure unless `--strict` says so."""
    architecture = load_file(arguments.file, arguments)
    found = architecture.lint()
    text = render(found, architecture.sources, arguments.format, terminal.style)
    if found or arguments.format == "json":
        text += "\n"
    elif arguments.format == "text":
        text = f"{arguments.file}: nothing to say\n"
    return terminal.result(text, as_dicts(found), found, ok=not (found and arguments.strict))
