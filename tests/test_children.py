"""Children have default signals, and none outlives its test."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.children import PATIENCE, SIGNALS, child, default_signals

ROOT = Path(__file__).parents[1]
SAY_SIGNALS = """
import signal
numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
print([signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler) for number in numbers])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
#: A child with a child of its own; both hold the standard output open for much longer than a test waits.
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"])
time.sleep(600)
"""
#: A test that is killed, with a child whose group is another one.
KILLED = """
import sys, time
from tests.children import child
say = "import time; print('ready', flush=True); time.sleep(600)"
with child([sys.executable, "-c", say], stdout=sys.stdout):
    time.sleep(600)
"""


@pytest.fixture
def ignoring() -> Iterator[None]:
    """What `nohup` and a shell's background do, and a mask as well."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_child_of_a_process_that_ignores_signals_does_not(ignoring: None) -> None:
    with child([sys.executable, "-c", SAY_SIGNALS], stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=PATIENCE)[0] == "[True, True, True]\nset()\n"
    with child([sys.executable, "-c", SAY_SIGNALS], ignored=[signal.SIGHUP], stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=PATIENCE)[0] == "[False, True, True]\nset()\n"


def test_a_block_has_default_signals_and_gives_back_what_was_there(ignoring: None) -> None:
    with default_signals():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == [signal.SIG_DFL] * 2
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 3


def said(reader: int) -> bytes:
    """A line from a pipe; empty once everybody who held its other end is gone."""
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([reader], [], [], PATIENCE)[0], f"somebody still holds the pipe and said {line!r}"
        if not (more := os.read(reader, 100)):
            break
        line += more
    return line


def test_a_failed_test_leaves_neither_child_nor_grandchild() -> None:
    reader, writer = os.pipe()
    with pytest.raises(ZeroDivisionError), child([sys.executable, "-c", FAMILY], stdout=writer):  # noqa: PT012
        os.close(writer)
        assert said(reader) == b"ready\n"
        1 / 0  # noqa: B018
    assert said(reader) == b""
    os.close(reader)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
def test_a_killed_test_leaves_no_child() -> None:
    reader, writer = os.pipe()
    with child([sys.executable, "-c", KILLED], stdout=writer, cwd=ROOT) as process:
        os.close(writer)
        assert said(reader) == b"ready\n"
        process.kill()
        assert said(reader) == b""
    os.close(reader)
