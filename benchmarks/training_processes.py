"""Training in one process and in several on one machine: tokens a second, seconds of the processor, memory of each.

    python benchmarks/training_processes.py [--processes 2] [--rounds 3]

The same model, batches and number of threads in all: one process with a thread for each of the others' processes. All
take turns, a run of a few steps each; medians of rounds. The table of `docs/training.md` is made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LENGTH, BATCH, STEPS = 128, 8, 3
MODEL = {
    "version": 1,
    "name": "hybrid",
    "dims": {"hidden_size": 384, "vocab_size": 2048},
    "components": {
        "scan": {"type": "mamba2", "d_state": 32, "head_dim": 32},
        "attn": {"type": "attention", "num_heads": 6},
        "mlp": {"type": "mlp", "intermediate_size": 1024},
    },
    "blocks": {"s": ["scan", "mlp"], "a": ["attn", "mlp"]},
    "stack": "s s a s s a",
}
#: Name, whether it is one process, options of the trainer, layers of a segment.
WAYS: dict[str, tuple[bool, bool, int]] = {
    "one process, two threads": (True, False, 0),
    "two processes": (False, False, 0),
    "two, `--fully-shard`": (False, True, 0),
    "two, `--fully-shard --segment 1`": (False, True, 1),
}


def work(name: str) -> None:
    """Run in a process of its own, and print what was seen."""
    import mlx.core as mx
    import numpy as np

    import axon_compose
    from axon_compose.learn import Batch, Budget, Recipe, Trainer
    from axon_compose.learn.ranks import Ranks

    class Drawn:
        tokens_of_step = BATCH * LENGTH

        def at(self, step: int) -> Batch:
            tokens = np.random.default_rng(step).integers(0, MODEL["dims"]["vocab_size"], (BATCH, LENGTH + 1), np.int32)
            return Batch(mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:]))

        def held_out(self) -> list[Batch]:
            return []

    ranks, (_, sharded, segment) = Ranks.launched(), WAYS[name]
    recipe = Recipe(batch=BATCH, length=LENGTH, segment=segment)
    model = axon_compose.load(MODEL).build()
    trainer = Trainer(model, Drawn(), recipe, Budget("steps", 100), ranks=ranks, sharded=sharded)
    trainer.step()
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    began, busy = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        loss = trainer.step().loss
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    seen = {"seconds": seconds, "busy": busy, "held": held, "peak": mx.get_peak_memory(), "loss": loss}
    if ranks.first:
        print("SEEN", json.dumps(seen), flush=True)


def run(name: str, processes: int) -> dict[str, Any]:
    """A way of training, once."""
    command = [str(Path(__file__).resolve()), "--work", name]
    threads = processes
    if WAYS[name][0]:
        command = [sys.executable, *command]
    else:
        threads = 1
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = str(one.getsockname()[1])
        launch = str(Path(sys.executable).with_name("mlx.launch"))
        command = [launch, "-n", str(processes), "-p", port, "--python", sys.executable, "--", *command]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    env = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    if not lines:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(lines[0].removeprefix("SEEN "))
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for _ in range(arguments.rounds):
        for name in WAYS:
            seen[name].append(run(name, arguments.processes))
            print(name, seen[name][-1], file=sys.stderr)
    tokens = STEPS * BATCH * LENGTH
    print("| | tokens/s | seconds of the processor, each process | held | peak |\n|---|---:|---:|---:|---:|")
    for name, found in seen.items():
        middle = {key: median(each[key] for each in found) for key in found[0]}
        speed, megabytes = tokens / middle["seconds"], {key: middle[key] / 1e6 for key in ("held", "peak")}
        held, peak = (f"{megabytes[key]:,.0f} MB" for key in ("held", "peak"))
        print(f"| {name} | {speed:,.0f} | {middle['busy']:.1f} | {held} | {peak} |")


if __name__ == "__main__":
    main()
