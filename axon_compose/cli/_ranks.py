"""Commands that several launched processes run together: the first one speaks for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from axon_compose.cli._streams import note
from axon_compose.machine.launched import launched_rank

__all__ = ["one_voice", "speaking", "together"]

#: What processes run together, or refuse together.
TOGETHER: Final = ("train", "race", "heal")


@contextmanager
def one_voice(argv: Sequence[str] | None) -> Iterator[None]:
    """Let all processes but the first be silent, in commands that they run together; not about what is unforeseen."""
    command = next(iter(sys.argv[1:] if argv is None else argv), "")
    if not launched_rank() or command not in TOGETHER:
        yield
        return
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


@contextmanager
def together(command: str) -> Iterator[None]:
    """Let an error of one process end the command in all of them."""
    if launched_rank() is None or command not in TOGETHER:
        yield
        return
    from axon_compose.learn.ranks import Ranks

    with Ranks.launched().together():
        yield


@contextmanager
def speaking(error: BaseException) -> Iterator[None]:
    """Let this process speak of an error after all, if no other process knows of it."""
    learn = sys.modules.get("axon_compose.learn.ranks")  # without it, nothing was exchanged
    if not (launched_rank() and learn and learn.is_unheard(error)):
        yield
        return
    before, sys.stderr = sys.stderr, sys.__stderr__ or sys.stderr
    note(f"process {launched_rank()}: ")
    try:
        yield
    finally:
        sys.stderr = before
