"""The FILE of a command: whatever `load` takes, or standard input."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import nullcontext
from pathlib import Path

from axon_compose.architecture import Architecture, load
from axon_compose.checkpoints.places import is_model_folder
from axon_compose.cli._imports import kept
from axon_compose.language.source import MAX_BYTES
from axon_compose.plan import Text

__all__ = ["load_file", "weights_of"]


def load_file(file: str, arguments: argparse.Namespace) -> Architecture:
    """Read, validate and plan the FILE of a command.

    Raises:
        ArchitectureError: With every fault.
        CheckpointError: If it is a folder without a model.
        OSError: If it cannot be read.
    """
    source = _streamed(file) if file == "-" or _is_descriptor(file) else file
    with kept():
        return load(source, checkpoint=getattr(arguments, "weights", None), settings=arguments.settings)


def _streamed(file: str) -> Text:
    """What comes by an open stream: standard input, or what the shell hands over."""
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        return Text(stream.read(MAX_BYTES + 1), "<stdin>" if file == "-" else file, Path.cwd())


def _is_descriptor(file: str) -> bool:
    """Whether the shell hands over an open stream by this path, as in `diff <(make-a) <(make-b)`.

    Such a pipe is read like standard input; any other FIFO or device is refused.
    """
    return file == "/dev/stdin" or re.fullmatch(r"/(dev|proc/self)/fd/[0-9]+", file) is not None


def weights_of(arguments: argparse.Namespace) -> str | None:
    """The folder that the weights come from: what `--weights` says, else FILE where that is a folder with a model."""
    given: str | None = arguments.weights
    return str(arguments.file) if given is None and is_model_folder(arguments.file) else given
