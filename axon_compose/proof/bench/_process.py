"""A process in which one subject lives, on both sides: what asks it to run, and what answers.

Both sides write lines of JSON. The first asks for a subject to be made, each later one for a workload to be run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TextIO

from axon_compose.analysis.measurement import Workload
from axon_compose.diagnostics import Refusal
from axon_compose.machine.memory import peak
from axon_compose.proof.bench._record import Run, Subject
from axon_compose.registry import Guard, Raised

__all__ = ["Failed", "Process", "Round", "answer"]

#: How the command line of a fresh process begins. Tests that are not about processes put another in its place.
PYTHON: list[str] = [sys.executable, "-P"]
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
        training_seconds: For the training step, where that is the work; then the others are 0.
        peak_bytes: The most that arrays took in that time.
        process_bytes: The most that the process ever held.
        device: Where it ran.
    """

    prefill_seconds: float
    decode_seconds: float
    training_seconds: float
    peak_bytes: int
    process_bytes: int
    device: str


class Process:
    """A fresh process that makes a subject and keeps it; used in a `with` statement.

    Raises:
        Failed: If the subject cannot be made.
        Refusal: If it is refused for a reason that has a code.
    """

    def __init__(self, subject: Subject) -> None:
        # The process finds the modules that this one finds, wherever it was started.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # `close` closes it
        self._process = subprocess.Popen(  # noqa: S603  # Python itself, or what tests put in its place
            [*PYTHON, "-m", "axon_compose.proof.bench"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment,
        )
        try:
            self._ask({"make": subject.make, "arguments": subject.arguments})
        except BaseException:
            self.close()
            raise

    def run(self, workload: Workload) -> Round:
        """Run the subject once. The first run of a workload is preceded by an untimed warm-up run.

        Raises:
            Failed: If the process ends, or the subject raises an exception.
        """
        return Round(**self._ask(asdict(workload)))

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            reply = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            self._process.wait()
            raise Failed(self._end()) from None
        if "refused" in reply:
            raise Refusal(*reply["refused"])
        if "fault" in reply:
            raise Failed(reply["fault"])
        return dict(reply)

    def _end(self) -> str:
        code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", most likely for want of memory" if name in ("SIGKILL", "SIGABRT") else ""
            return f"the process was ended by {name}{hint}"
        self._said.seek(0)
        said = self._said.read().strip().splitlines()
        return f"the process ended with {code}" + (f": {said[-1]}" if said else "")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer(asked: TextIO, replies: TextIO) -> None:
    """The other side: make what is asked, run it as often as asked, and tell results and faults.

    Args:
        asked: Lines of JSON; the process ends with them.
        replies: A line for each.
    """
    runner = _Runner()
    handle: Callable[[dict[str, Any]], dict[str, Any]] = runner.make
    for line in asked:
        try:
            with Guard(None):  # the code of a component may print and raise anything
                result = handle(json.loads(line))
        except Refusal as error:
            result = {"refused": [error.code, error.message, error.help, error.details]}
        except Raised as raised:
            traceback.print_exception(raised.error)
            result = {"fault": raised.cause}
        replies.write(json.dumps(result) + "\n")
        replies.flush()
        handle = runner.run


class _Runner:
    """A subject that is there, and the workloads that it has seen."""

    def __init__(self) -> None:
        self.model: Run
        self.seen: set[Workload] = set()

    def make(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        module, _, name = asked["make"].partition(":")
        self.model = getattr(import_module(module), name)(asked["arguments"])
        return {}

    def run(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        workload = Workload(**asked)
        self.model.begin(workload)
        timed = self._train if workload.training else self._generate
        if workload not in self.seen:
            timed(workload, min(WARM_STEPS, workload.steps))
            self.seen.add(workload)
        self.model.reset_peak()
        seconds = timed(workload, workload.steps)
        return asdict(Round(*seconds, self.model.peak_bytes(), peak(), self.model.device))

    def _generate(self, workload: Workload, steps: int) -> tuple[float, float, float]:
        start = perf_counter()
        self.model.prefill()
        read = perf_counter()
        self.model.decode(steps)
        return read - start, perf_counter() - read, 0.0

    def _train(self, workload: Workload, steps: int) -> tuple[float, float, float]:
        start = perf_counter()
        self.model.train()
        return 0.0, 0.0, perf_counter() - start
