"""What `train` and `heal` have in common: their options, their texts, and the end of a run that was stopped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from axon_compose.cli._terminal import Terminal
from axon_compose.cli._training_flags import options_of
from axon_compose.diagnostics import Refusal
from axon_compose.learn import Cadence, Recipe
from axon_compose.machine.interrupts import INTERRUPTED
from axon_compose.machine.launched import launched_rank

__all__ = ["drawn", "run_options", "stopped", "texts_of"]


def run_options(arguments: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """Keywords that `axon_compose.learn.train` and `axon_compose.surgery.heal` both take.

    Args:
        arguments: Of the command.
        recipe: Its defaults.

    Raises:
        ValueError: If the options do not fit together.
    """
    names = ("budget", "tokenizer", "resume", "force", "allow_large")
    return {name: getattr(arguments, name) for name in names} | {
        "recipe": options_of(arguments, recipe),
        "cadence": options_of(arguments, Cadence()),
    }


def texts_of(arguments: argparse.Namespace) -> Any:
    """The `Sources` that `--data` names, standard input read to its end where it is one of them.

    Raises:
        Refusal: AX807 standard input was asked for in a launched process.
    """
    from axon_compose.learn import Sources

    if "-" in arguments.data and launched_rank() is not None:
        raise Refusal("AX807", "standard input cannot be read by several processes", "write it into a file")
    piped = sys.stdin.buffer.read() if "-" in arguments.data else b""
    return Sources(tuple(arguments.data), arguments.field, piped)


def stopped(terminal: Terminal) -> int:
    """Say how a run that somebody stopped is continued; the exit code."""
    terminal.note("stopped; the same command with `--resume` continues where it was")
    return INTERRUPTED


def drawn(files: Callable[[], Mapping[str, str]]) -> Mapping[str, bytes]:
    """Pages and pictures by name, where there is something to draw them with."""
    if find_spec("matplotlib") is None:
        return {}
    from axon_compose.report.draw import apart

    with apart():
        return {name: text.encode() for name, text in files().items()}
