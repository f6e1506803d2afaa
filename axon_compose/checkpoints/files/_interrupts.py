"""Signals that end a build where it can be ended, and wait where it cannot."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final

from axon_compose.machine.interrupts import interrupt

__all__ = ["Interrupts"]

#: The handlers of a program that handles nothing itself; the second of SIGINT is that of our commands.
_DEFAULTS: Final[dict[int, tuple[Any, ...]]] = {
    signal.SIGINT: (signal.default_int_handler, interrupt),
    signal.SIGTERM: (signal.SIG_DFL,),
    signal.SIGHUP: (signal.SIG_DFL,),
}


class Interrupts:
    """While it is entered, signals raise inside `allowed()` only; elsewhere they are kept until the end.

    SIGINT raises `KeyboardInterrupt`, SIGTERM and SIGHUP raise `SystemExit(128 + signal)`. After the first one the rest
    wait, so the tidying that follows is not cut short. A signal that the program handles or ignores itself is left
    alone, and so are all of them outside the main thread. The handlers from before come back at the end.
    """

    def __init__(self) -> None:
        self._open = False
        self._kept: BaseException | None = None
        self._taken: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in _DEFAULTS}
            self._taken = {number: handler for number, handler in before.items() if handler in _DEFAULTS[number]}
        for number in self._taken:
            signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._taken.items():
            signal.signal(number, handler)
        if self._kept and error is None:
            raise self._kept

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals raise in the body; one that was kept before raises at once."""
        try:
            self._open = True
            if self._kept:
                raise self._kept
            yield
        finally:
            self._open = False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self._open:
            self._kept = _exception(number)
            return
        self._open = False
        raise _exception(number)  # no local may hold it: a cycle would keep the body's frames, and so the folder, alive


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
