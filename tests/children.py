"""Child processes of tests: they start with default signals, whatever the suite was started by, and end with the test.

A suite in the background (`nohup make test &`) ignores SIGHUP and SIGINT, and so would all that it starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

#: Seconds to wait for what a child should do: only a child that never does it takes so long.
PATIENCE: Final = 120
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
#: Becomes the command after it, in the same process. SIGPIPE and SIGXFSZ are those that Python itself ignores.
#: On Linux (1 is PR_SET_PDEATHSIG) the kernel kills the child when the test's process is gone, however that ended.
_LAUNCHER: Final = """
import ctypes, os, signal, sys
parent, ignored, *command = sys.argv[1:]
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_IGN if str(int(number)) in ignored.split(",") else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the test is gone")
os.execvp(command[0], command)
"""


@contextmanager
def child(
    command: Iterable[str],
    *,
    ignored: Iterable[signal.Signals] = (),
    stdin: int | IO[str] = subprocess.DEVNULL,
    stdout: int | IO[str] = subprocess.DEVNULL,
    stderr: int | IO[str] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: bool = True,
) -> Iterator[subprocess.Popen[Any]]:
    """Run a command in a session of its own; at the end, also that of a failed test, its whole group is killed.

    Args:
        command: The program and its arguments.
        ignored: Those of `SIGNALS` that the child ignores; the rest have their defaults.
        stdin: As for `Popen`, and so are the others, but that streams are closed to the child unless asked for.
        stdout: See `stdin`.
        stderr: See `stdin`.
        env: All variables of the child, or None for those of the test.
        cwd: Where it runs.
        text: Whether pipes carry text or bytes.

    Yields:
        The process, which has the PID of the command itself.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), ",".join(str(int(n)) for n in ignored)]
    process = subprocess.Popen(
        [*launcher, *command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        text=text,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, PermissionError):  # macOS forbids to kill a group that has only ended ones
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def default_signals() -> Iterator[None]:
    """Give this process the handlers with which Python starts in a terminal, and then back what it had."""
    defaults = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, default) for number, default in defaults.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
