"""The FILE of a command: a path, the name of a shipped architecture, or standard input."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from axon_compose.architecture import Architecture, load, load_text
from axon_compose.diagnostics import Problems
from axon_compose.language.source import MAX_BYTES

__all__ = ["load_file", "load_model"]


def load_file(file: str, arguments: argparse.Namespace, problems: Problems | None = None) -> Architecture:
    """Read, validate and plan the FILE of a command.

    Raises:
        ArchitectureError: With every fault.
        OSError: If it cannot be read.
    """
    checkpoint = getattr(arguments, "weights", None)
    if file == "-" and checkpoint is None:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        return load_text(data, "<stdin>", Path.cwd(), settings=arguments.settings, problems=problems)
    return load(file, checkpoint=checkpoint, settings=arguments.settings)


def load_model(file: str, arguments: argparse.Namespace) -> Architecture:
    """A FILE, or the family of a checkpoint with its sizes.

    Raises:
        ArchitectureError: With every fault.
        OSError: If it cannot be read.
    """
    if file != "-" and Path(file).is_dir():
        return load(checkpoint=file, settings=arguments.settings)
    return load_file(file, arguments)
