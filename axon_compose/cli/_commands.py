"""What a command is to the parser: a name, a function that is imported when it runs, and a parser of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from axon_compose.cli._imports import kept
from axon_compose.cli._terminal import Terminal

__all__ = ["Command", "Run", "lazily"]

Run = Callable[[argparse.Namespace, Terminal], int]
#: Adds a command: its name, what runs it and its summary give its parser.
Command = Callable[[str, Run, str], argparse.ArgumentParser]


def lazily(module: str, name: str) -> Run:
    """The function of a command, its module imported when it runs: each command pays for itself alone."""

    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        with kept():
            command: Run = getattr(import_module(f"axon_compose.cli.{module}"), name)
        return command(arguments, terminal)

    return run
