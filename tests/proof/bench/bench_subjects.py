"""Stand-ins for models: they run in processes of their own and need no mlx."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axon_compose.proof.bench import Subject, Workload


def stand_in(name: str, **arguments: Any) -> Subject:
    return Subject(name, f"{__name__}:make", {"name": name, **arguments})


class Sleeper:
    device = "pillow"

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments, self.counted = arguments, 0

    def begin(self, workload: Workload) -> None:
        if workload.prompt == self.arguments.get("dies_of"):
            os._exit(3)
        if workload.prompt == self.arguments.get("refuses"):
            raise RuntimeError("not this one")

    def train(self) -> None:
        time.sleep(self.arguments.get("train", 0.0))

    def prefill(self) -> None:
        time.sleep(self.arguments.get("prefill", 0.0))

    def decode(self, steps: int) -> None:
        time.sleep(steps * self.arguments.get("step", 0.0))
        self.counted += steps

    def reset_peak(self) -> None:
        self.counted = 0

    def peak_bytes(self) -> int:
        return 1000 + self.counted


def make(arguments: Mapping[str, Any]) -> Sleeper:
    sys.stdout.write("this is not the answer\n")
    sys.stdout.flush()
    if "log" in arguments:
        with Path(arguments["log"]).open("a") as log:
            log.write(f"{arguments['name']} {os.getpid()}\n")
    if "hold" in arguments:
        bytes(bytearray(arguments["hold"]))
    match arguments.get("end"):
        case "raise":
            raise RuntimeError("no such kernel")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            os._exit(3)
    return Sleeper(arguments)
