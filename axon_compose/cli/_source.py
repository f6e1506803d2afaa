"""The FILE of a command: whatever `load` takes, or standard input."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from axon_compose.architecture import Architecture, load, load_text
from axon_compose.checkpoints.places import is_model_folder
from axon_compose.diagnostics import Problems
from axon_compose.language.source import MAX_BYTES

__all__ = ["load_file", "weights_of"]


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


def weights_of(arguments: argparse.Namespace) -> str | None:
    """The folder that the weights come from: what `--weights` says, else FILE where that is a folder with a model."""
    given: str | None = arguments.weights
    return str(arguments.file) if given is None and is_model_folder(arguments.file) else given
