"""What a run says while it goes on: a line that is kept up to date on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axon_compose.cli._streams import note
from axon_compose.cli._terminal import Terminal
from axon_compose.machine.memory import peak
from axon_compose.machine.units import human, rate
from axon_compose.report import escape

__all__ = ["Lines"]

#: Steps over which the speed is taken, and the loss is averaged.
_RECENT = 20
#: Seconds between two changes of the line.
_PAUSE = 0.2


class Lines:
    """Listens to a run, and writes to standard error.

    Args:
        terminal: Of the command.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._live = sys.stderr.isatty()
        self._recent: deque[Any] = deque(maxlen=_RECENT)
        self._began, self._first, self._shown = time.monotonic(), 0.0, 0.0
        self._part = 0.0

    def preparing(self, done: int, total: int) -> None:
        """Say how far the tokens are."""
        self._terminal.progress(done, total, "preparing tokens")

    def step(self, metrics: Any, part: float) -> None:
        """Keep the line up to date."""
        if not self._recent:
            self._began, self._first = time.monotonic(), self._part
        self._recent.append(metrics)
        self._part = part
        if self._live and time.monotonic() - self._shown > _PAUSE:
            self._shown = time.monotonic()
            note(f"\r\x1b[K{self._now()}")

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Say what the held-out loss is."""
        bits = f", {line['bits_per_byte']:.3f} bits per byte" if "bits_per_byte" in line else ""
        right = f", {line['accuracy']:.1%} of answers right" if "accuracy" in line else ""
        now = f"{self._now()}, " if self._recent else "before the first step: "
        self._say(f"{now}held out {line['loss']:.3f}{bits}{right}")

    def sample(self, line: Mapping[str, Any]) -> None:
        """Show what the model writes."""
        self._say("\n".join(f"  | {escape(each)}" for each in line["text"].splitlines()) or "  |")

    def checkpoint(self, folder: Path, steps: int) -> None:
        """Nothing: the folder is there from the start."""

    def close(self) -> None:
        """Take the line away."""
        if self._live:
            note("\r\x1b[K")

    def _say(self, text: str) -> None:
        note(("\r\x1b[K" if self._live else "") + text + "\n")

    def _now(self) -> str:
        last, first = self._recent[-1], self._recent[0]
        loss = sum(each.loss for each in self._recent) / len(self._recent)
        seconds, tokens = last.spent.seconds - first.spent.seconds, last.spent.tokens - first.spent.tokens
        if not seconds:
            seconds, tokens = last.spent.seconds, last.spent.tokens
        done = self._part - self._first
        speed = rate(tokens / max(seconds, 1e-9))
        left = (time.monotonic() - self._began) * (1 - self._part) / done if done else 0.0
        return (
            f"{self._part:4.0%} step {last.spent.steps:,}: loss {loss:.3f}, {speed} tokens/s, {human(peak())}, "
            f"{_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
