"""The record of a run: a line of JSON for each step, evaluation and sample; also what a curve is drawn from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, Final, Literal

from axon_compose.machine.files import cannot_write, write_output

__all__ = ["METRICS_FILE", "History"]

METRICS_FILE: Final = "metrics.jsonl"
Kind = Literal["step", "evaluation", "sample"]


class History:
    """The lines of a run in memory, and in a file as they come.

    Each line has `kind`, `step` and `tokens`; `step` lines what `Metrics.to_dict` gives, `evaluation` lines `loss` and,
    of texts, `bits_per_byte` (of tasks `accuracy`), `sample` lines a `text`.

    Args:
        lines: Those that are known already.
    """

    def __init__(self, lines: list[dict[str, Any]] | None = None) -> None:
        self.lines = lines or []
        self._file: Path | None = None

    @classmethod
    def read(cls, folder: Path, steps: float = inf, name: str = METRICS_FILE) -> History:
        """What a run has written before it was interrupted, as far as it goes on from there.

        Args:
            folder: Of the run.
            steps: How many are done; lines of later ones, written after the last checkpoint, are dropped.
            name: Of the file.
        """
        path = folder / name
        found = _parsed(path.read_text("utf-8", "replace")) if path.exists() else ()
        return cls([line for line in found if line["step"] < steps or (line["step"] == steps and _between(line))])

    def add(self, kind: Kind, **values: Any) -> None:
        """Append a line, to the file too if there is one.

        Raises:
            CheckpointError: AX503 the file cannot be written, as on a full disk.
        """
        line = {"kind": kind, **values}
        self.lines.append(line)
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(_written(line))
        except OSError as error:
            raise cannot_write(self._file, error) from error

    def write(self, folder: Path, name: str = METRICS_FILE) -> None:
        """Write all lines into a new folder."""
        (folder / name).write_text("".join(map(_written, self.lines)), "utf-8")

    def replace(self, folder: Path) -> None:
        """Write all lines in the place of those that an interrupted run has left, and append to them from now on.

        Raises:
            CheckpointError: AX503 the file cannot be written.
        """
        write_output(folder / METRICS_FILE, "".join(map(_written, self.lines)).encode(), force=True)
        self.follow(folder)

    def follow(self, folder: Path) -> None:
        """Append from now on to the file in this folder."""
        self._file = folder / METRICS_FILE

    def of(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """The lines of a kind, in order."""
        return (line for line in self.lines if line["kind"] == kind)

    def last(self, kind: Kind) -> dict[str, Any] | None:
        """The last line of a kind."""
        return next((line for line in reversed(self.lines) if line["kind"] == kind), None)


def _between(line: dict[str, Any]) -> bool:
    """Whether a line is of what happens between steps, whose number is that of steps done."""
    return bool(line["kind"] != "step")


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    """The lines of a file, but for what is half a line because the run was killed, or the disk was full."""
    for line in text.split("\n"):  # `splitlines` also splits at characters that a sample may have
        with suppress(ValueError):
            yield json.loads(line)


def _written(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
