"""The FILE of a command: whatever `load` takes, or standard input."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import nullcontext
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
    if checkpoint is None and (file == "-" or _is_descriptor(file)):
        name = "<stdin>" if file == "-" else file
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        return load_text(data, name, Path.cwd(), settings=arguments.settings, problems=problems)
    return load(file, checkpoint=checkpoint, settings=arguments.settings)


def _is_descriptor(file: str) -> bool:
    """Whether the shell hands over an open stream by this path, as in `diff <(make-a) <(make-b)`.

    Such a pipe is read like standard input; any other FIFO or device is refused.
    """
    return file == "/dev/stdin" or re.fullmatch(r"/(dev|proc/self)/fd/[0-9]+", file) is not None


def weights_of(arguments: argparse.Namespace) -> str | None:
    """The folder that the weights come from: what `--weights` says, else FILE where that is a folder with a model."""
    given: str | None = arguments.weights
    return str(arguments.file) if given is None and is_model_folder(arguments.file) else given
