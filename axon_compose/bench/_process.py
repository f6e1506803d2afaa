"""One run in a process of its own, on both sides: what asks for it, and what answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from axon_compose.bench._record import Run, Subject, Workload
from axon_compose.memory import peak

__all__ = ["Failed", "Round", "answer", "run"]

#: Decoding steps before the clock starts; kernels are compiled and buffers made in the first ones.
WARM_STEPS: Final = 2


class Failed(Exception):
    """A process that gave no answer; the text says why."""


@dataclass(frozen=True)
class Round:
    """What one run took.

    Attributes:
        prefill_seconds: For the prompts of all sequences.
        decode_seconds: For all steps.
        peak_bytes: The most that arrays took in that time.
        process_bytes: The most that the process ever held.
        device: Where it ran.
    """

    prefill_seconds: float
    decode_seconds: float
    peak_bytes: int
    process_bytes: int
    device: str


def run(subject: Subject, workload: Workload) -> Round:
    """Make a subject in a fresh process and run it once.

    Raises:
        Failed: If it ends without an answer.
    """
    asked = {"make": subject.make, "arguments": subject.arguments, "workload": asdict(workload)}
    # The process finds the modules that this one finds, wherever it was started.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    command = [sys.executable, "-P", "-m", "axon_compose.bench"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, env=environment)  # noqa: S603
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise Failed(_end(done)) from None
    if "fault" in told:
        raise Failed(told["fault"])
    return Round(**told)


def _end(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = ", most likely for want of memory" if name in ("SIGKILL", "SIGABRT") else ""
        return f"the process was ended by {name}{hint}"
    said = done.stderr.strip().splitlines()
    return f"the process ended with {done.returncode}" + (f": {said[-1]}" if said else "")


def answer() -> None:
    """The other side: read what is asked, run it, and write a `Round` or a fault as JSON."""
    asked = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):  # what components print is not the answer
        try:
            told = asdict(_timed(asked["make"], asked["arguments"], Workload(**asked["workload"])))
        except Exception as error:  # the code of a component may raise anything, and the other side wants to know
            traceback.print_exc()
            told = {"fault": f"{type(error).__name__}: {error}".removesuffix(": ")}
    json.dump(told, sys.stdout)


def _timed(make: str, arguments: Mapping[str, Any], workload: Workload) -> Round:
    module, _, name = make.partition(":")
    model: Run = getattr(import_module(module), name)(arguments, workload)
    model.prefill()
    for _ in range(WARM_STEPS):
        model.step()
    model.reset_peak()
    start = perf_counter()
    model.prefill()
    read = perf_counter()
    for _ in range(workload.steps):
        model.step()
    end = perf_counter()
    return Round(read - start, end - read, model.peak_bytes(), peak(), model.device)
