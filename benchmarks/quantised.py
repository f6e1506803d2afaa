"""Decoding and prefill of built folders on the CPU, for each way to multiply, and of llama.cpp on the same GGUF file.

    python benchmarks/quantised.py FOLDER [--stock FOLDER] [--gguf FILE --llama PYTHON]

`FOLDER` is what `axon-compose build` wrote; `--stock` its export for mlx-lm (`axon-compose export --to mlx-lm`), which
mlx-lm runs with its own classes; `--llama` a Python that has `llama_cpp` (`pip install llama-cpp-python` builds it).
Every side is a process that stays; their rounds are interleaved. Figures are medians over the rounds, in tokens per
second of processor time (all threads together), which leaves out what neighbours on the machine take from the clock,
though not what they take from caches and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Tokens of the prompt, and tokens that are decoded after it.
PROMPT, DECODED = 64, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder that `axon-compose build` wrote")
    parser.add_argument("--stock", metavar="FOLDER", help="the same for stock mlx-lm")
    parser.add_argument("--gguf", metavar="FILE", help="the same for llama.cpp")
    parser.add_argument("--llama", metavar="PYTHON", default=sys.executable, help="a Python with `llama_cpp`")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=("mlx", "llama"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve((_mlx if arguments.side == "mlx" else _llama)(arguments.folder, arguments.threads))
        return
    sides = started(arguments)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, process in sides.items():
            rounds[name].append(asked(process))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    write(rounds)


def started(arguments: argparse.Namespace) -> dict[str, subprocess.Popen[str]]:
    """A process for each side."""
    here = [__file__, "--threads", str(arguments.threads), "--side"]
    environment = dict.fromkeys(("OPENBLAS_NUM_THREADS", "AXON_THREADS"), str(arguments.threads))
    found = {"with axon-native": ([sys.executable, *here, "mlx", arguments.folder], {"AXON_NATIVE": "1"})}
    found["without"] = ([sys.executable, *here, "mlx", arguments.folder], {"AXON_NATIVE": "0"})
    if arguments.stock:
        found["mlx-lm"] = ([sys.executable, *here, "mlx", arguments.stock], {"AXON_NATIVE": "0"})
    if arguments.gguf:
        found["llama.cpp"] = ([arguments.llama, *here, "llama", arguments.gguf], {})
    return {
        name: subprocess.Popen(
            command,
            env=os.environ | environment | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, (command, own) in found.items()
    }


def asked(process: subprocess.Popen[str]) -> dict[str, float]:
    """One round of a side."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{process.args} failed")
    found: dict[str, float] = json.loads(answer)
    return found


def write(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Medians, their range, and ratios to the first side round by round."""
    first = next(iter(rounds.values()))
    sys.stdout.write(f"{'':18}{'prefill':>8}  {'range':13}{'ratio':>6}    {'decode':>6}  {'range':11}{'ratio':>6}\n")
    for name, found in rounds.items():
        line = f"{name:18}"
        for what in ("prefill", "decode"):
            rates = [each[what] for each in found]
            ratio = statistics.median(one[what] / each[what] for one, each in zip(first, found, strict=True))
            line += f"{statistics.median(rates):8.1f}  {f'{min(rates):.1f}..{max(rates):.1f}':13}{ratio:5.2f}x  "
        sys.stdout.write(line.rstrip() + "\n")


# -- Sides ------------------------------------------------------------------------------------------------------------


def serve(once: Callable[[], dict[str, float]]) -> None:
    """Answers every line with a round; the first round, which makes what later ones find ready, is not reported."""
    once()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(once()) + "\n")
        sys.stdout.flush()


def rates(prefill: Callable[[], Any], step: Callable[[], Any]) -> dict[str, float]:
    """Tokens per second of processor time."""
    times = []
    for work in (prefill, *[step] * DECODED):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return {"prefill": PROMPT / times[0], "decode": 1 / statistics.median(times[1:])}


def _mlx(folder: str, _threads: int) -> Callable[[], dict[str, float]]:
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder), trust_remote_code=True)
    prompt = mx.arange(2, 2 + PROMPT)[None]

    def once() -> dict[str, float]:
        cache = make_prompt_cache(model)
        last = prompt

        def forward() -> None:
            nonlocal last
            last = mx.argmax(model(last, cache=cache)[:, -1:], axis=-1)
            mx.eval(last)

        return rates(forward, forward)

    return once


def _llama(file: str, threads: int) -> Callable[[], dict[str, float]]:
    from llama_cpp import Llama

    model = Llama(file, n_ctx=512, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)

    def once() -> dict[str, float]:
        model.reset()
        return rates(lambda: model.eval(list(range(2, 2 + PROMPT))), lambda: model.eval([7]))

    return once


if __name__ == "__main__":
    main()
