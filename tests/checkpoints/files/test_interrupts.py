"""Signals raise in the body and wait elsewhere, so that tidying is never cut short."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from pathlib import Path

import pytest

from axon_compose.checkpoints.files import atomic_folder
from axon_compose.checkpoints.files._interrupts import Interrupts

pytestmark = pytest.mark.usefixtures("default_signals")


def test_outside_of_allowed_a_signal_waits_for_the_end() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        reached.append("before")
        with interrupts.allowed():
            reached.append("body")
    assert reached == ["before"]


def test_one_signal_ends_the_body_and_a_second_waits() -> None:
    reached = []
    with pytest.raises(SystemExit) as leave, Interrupts() as interrupts:  # noqa: PT012
        try:
            with interrupts.allowed():
                signal.raise_signal(signal.SIGTERM)
                reached.append("body")
        finally:
            signal.raise_signal(signal.SIGINT)
            reached.append("tidied")
    assert leave.value.code == 143
    assert reached == ["tidied"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts, interrupts.allowed():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


# A signal between `open` and `with` leaves the file to the garbage collector: Python itself cannot prevent that.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_signals_at_random_moments_leave_a_whole_folder_and_nothing_else(tmp_path: Path) -> None:
    def once() -> None:
        with atomic_folder(tmp_path / "m", force=True) as partial:
            (partial / "build.json").write_text('{"build_format": 1, "files": {}}')

    def strike(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    def timed() -> float:
        start = time.perf_counter()
        once()
        return time.perf_counter() - start

    duration = min(timed() for _ in range(5))
    chance = random.Random(5)
    before = signal.signal(signal.SIGALRM, strike)
    struck = 0
    gc.disable()  # Hypothesis has a callback there, in which an interrupt is lost
    try:
        for _ in range(3000):  # a busy machine lets many signals come after the end
            if struck == 120:
                break
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, duration))
                    once()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            assert os.listdir(tmp_path) == ["m"]  # noqa: PTH208
            assert (tmp_path / "m" / "build.json").stat().st_size > 0
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    assert struck == 120
