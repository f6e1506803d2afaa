"""One guard around every call into code of a plugin: whatever it raises, prints or changes, the command goes on."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as `signal`, without conversions that take ten times as long
import io
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, TextIO

from axon_compose.diagnostics import Refusal
from axon_compose.registry._failure import one_line

__all__ = ["DEBUG_HELP", "Guard", "PluginFault", "Raised", "debug_traceback", "place_of"]

_DEBUG: Final = "AXON_COMPOSE_PLUGIN_DEBUG"
DEBUG_HELP: Final = f"{_DEBUG}=1 shows the traceback"

#: Seconds of computing that a function of a record, or a validator of options, may take. They work with a few integers.
SECONDS: Final = 10.0
#: A plugin that ignores being out of time is interrupted again after this number of seconds.
_AGAIN: Final = 0.5
#: Packages between ours and a plugin's, which are not what a reader looks for.
_MACHINERY: Final = sys.stdlib_module_names | {"axon_compose", "jsonschema", "mlx", "pluggy", "pydantic"}


class PluginFault(Refusal):
    """Code of a component that fails, or gives something else than was agreed.

    Attributes:
        code: `AX208` it cannot be imported, `AX211` it builds other parameters than it declares, `AX212` it raises an
            exception, or gives no array of the right shape.
        message: What happened, with the component's type, its place in the model and the distribution.
    """

    faulty = True


class Raised(Exception):
    """What code of a plugin raised, of whatever kind.

    Attributes:
        error: The exception itself.
        cause: Its type and text in one line.
        place: The plugin's line that raised it, such as `axon_acme/layers.py:23`; empty if there is none.
        package: The package of that line.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.cause = error.text if isinstance(error, _Late) else one_line(error)
        self.package, self.place = place_of(error)
        super().__init__(self.cause)

    def __str__(self) -> str:
        return f"{self.cause}, at {self.place}" if self.place else self.cause

    @property
    def reason(self) -> str:
        """The text of a `ValueError`, which is meant for users; of anything else its type and place too."""
        plain = isinstance(self.error, ValueError)
        text = self.cause.removeprefix(type(self.error).__name__).removeprefix(": ") if plain else ""
        return text or str(self)


class _Noise(io.TextIOBase):
    """Standard error in the place of standard output; closing it closes nothing."""

    @property
    def buffer(self) -> Any:
        return sys.stderr.buffer

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _Printed:
    """Makes `sys.stdout` standard error while there are guards, in whichever threads, and then what it was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards = 0
        self._before: TextIO = sys.stdout
        self._noise: Any = _Noise()

    def enter(self) -> None:
        with self._lock:
            if not self._guards:
                self._before, sys.stdout = sys.stdout, self._noise
            self._guards += 1

    def leave(self) -> None:
        with self._lock:
            self._guards -= 1
            if not self._guards:
                sys.stdout = self._before


_PRINTED: Final = _Printed()


class Guard:
    """Runs code of a plugin in a `with` statement, and leaves the process as it was.

    Whatever is raised comes out as `Raised`, also what ends a process, such as `SystemExit`; a real Ctrl-C stays a
    `KeyboardInterrupt`. What is printed goes to standard error, for standard output belongs to the command's result.
    In the main thread, the working directory is put back and computing is limited.

    Args:
        patience: How many times `SECONDS` it may compute, in time of this process, so that a busy machine does not
            matter; None for no limit.

    Raises:
        Raised: Instead of every exception, other than those of axon-compose itself.
    """

    __slots__ = ("_armed", "_before", "_folder", "_interrupted", "_seconds")

    def __init__(self, patience: float | None = 1.0) -> None:
        self._seconds = None if patience is None else patience * SECONDS
        self._interrupted = False
        self._armed = False
        self._before: dict[int, Any] = {}
        self._folder: str | None = None

    def __enter__(self) -> Guard:
        _PRINTED.enter()
        if threading.current_thread() is threading.main_thread():
            self._folder = _working_directory()
            self._watch()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        self._armed = False
        for number, handler in self._before.items():
            if number != signal.SIGINT:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            _signal.signal(number, handler)
        _PRINTED.leave()
        if self._folder is not None and _working_directory() != self._folder:
            os.chdir(self._folder)
        if error is None or isinstance(error, Refusal | Raised) or self._is_interrupt(error):
            return
        debug_traceback(error)
        raise Raised(error) from error

    def _is_interrupt(self, error: BaseException) -> bool:
        """Whether it comes from the keyboard, which a signal that is ignored never does.

        Outside of the main thread nothing else is known of it.
        """
        return isinstance(error, KeyboardInterrupt) and (self._interrupted or signal.SIGINT not in self._before)

    def _watch(self) -> None:
        before = _signal.getsignal(signal.SIGINT)
        if before is not None:  # a handler of C, of which nothing is known
            self._before[signal.SIGINT] = before
        if callable(before):
            _signal.signal(signal.SIGINT, self._note)
        if self._seconds is None or not hasattr(signal, "setitimer"):
            return
        if signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0):  # else somebody's clock is running: an outer guard's
            self._before[signal.SIGVTALRM] = _signal.signal(signal.SIGVTALRM, self._out_of_time)
            self._armed = True
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds, _AGAIN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        self._before[signal.SIGINT](number, frame)

    def _out_of_time(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            assert self._seconds is not None
            raise _Late(self._seconds)


class _Late(BaseException):
    """Raised into code that computes for too long; not an `Exception`, since those are caught too easily."""

    def __init__(self, seconds: float) -> None:
        self.text = f"no answer after {seconds:g} s of computing"
        super().__init__(self.text)


def place_of(error: BaseException) -> tuple[str, str]:
    """The package of a plugin that an exception comes from, and the line, as `package/file.py:23`; or empty texts.

    The innermost frame of the first package that is neither ours nor in between: a plugin's call into mlx is its own.
    """
    package, place = "", ""
    trace = error.__traceback__
    while trace is not None:
        frame, line, trace = trace.tb_frame, trace.tb_lineno, trace.tb_next
        here = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not package and here not in _MACHINERY and not frame.f_code.co_filename.startswith("<frozen"):
            package = here
        if package and here == package:
            place = f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{line}"
    return package, place


def debug_traceback(error: BaseException) -> None:
    """Print the traceback of a plugin's exception to standard error, if `AXON_COMPOSE_PLUGIN_DEBUG` asks for it."""
    if os.environ.get(_DEBUG, "0") not in ("", "0"):
        from traceback import print_exception  # few ask for it, and every command would wait for it

        print_exception(error, file=sys.stderr)


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # on every call into a plugin: a fraction of the time of `Path.cwd`
    except OSError:
        return None
