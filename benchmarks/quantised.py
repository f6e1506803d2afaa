"""Prefill and decoding of built folders on the CPU, for each way to multiply, and of llama.cpp on the same GGUF file.

    python benchmarks/quantised.py FOLDER [--stock FOLDER] [--gguf FILE --llama PYTHON] [--write NAME]

`FOLDER` is what `axon-compose build` wrote; `--stock` its export for mlx-lm (`axon-compose export --to mlx-lm`), which
mlx-lm runs with its own classes; `--llama` a Python that has `llama_cpp` (`pip install llama-cpp-python` builds it).
Every side is a process that stays; their rounds are interleaved. Tokens per second of the clock are what a user sees:
the next step is prepared while one is computed, as `mlx_lm.generate` does. Those per second of processor time (all
threads together) leave out what neighbours on the machine take from the clock, though not what they take from caches
and memory. Figures are medians over the rounds.
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
from typing import Any, Final

import kept

#: Tokens of the prompt, and tokens that are decoded after it.
PROMPT, DECODED = 64, 32
#: What is measured, in tokens per second.
FIGURES: Final = ("prefill", "decode", "prefill, processor", "decode, processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder that `axon-compose build` wrote")
    parser.add_argument("--stock", metavar="FOLDER", help="the same for stock mlx-lm")
    parser.add_argument("--gguf", metavar="FILE", help="the same for llama.cpp")
    parser.add_argument("--llama", metavar="PYTHON", default=sys.executable, help="a Python with `llama_cpp`")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", metavar="NAME", help="keep the medians in results.json under this name")
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
    show(rounds)
    if arguments.write:
        kept.keep("quantised", arguments.write, {"threads": arguments.threads, "sides": summary(rounds)})


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


def show(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Medians, their range, and ratios of the first side to each."""
    found = summary(rounds)
    for figure in FIGURES:
        sys.stdout.write(f"{figure + ', tokens/s':30}{'median':>7}  {'range':15}{'ratio':>6}\n")
        for name, figures in found.items():
            rates = [each[figure] for each in rounds[name]]
            span = f"{min(rates):.1f}..{max(rates):.1f}"
            sys.stdout.write(
                f"  {name:28}{figures[figure]['median']:7.1f}  {span:15}{figures[figure]['ratio']:5.2f}x\n"
            )


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Medians of each side, and of the first side's ratio to it."""
    first = next(iter(rounds.values()))
    return {side: {figure: _of(found, first, figure) for figure in FIGURES} for side, found in rounds.items()}


def _of(found: list[dict[str, float]], first: list[dict[str, float]], figure: str) -> dict[str, float]:
    ratios = [one[figure] / each[figure] for one, each in zip(first, found, strict=True)]
    rate = statistics.median(each[figure] for each in found)
    return {"median": round(rate, 2), "ratio": round(statistics.median(ratios), 3)}


# -- Sides ------------------------------------------------------------------------------------------------------------


def serve(once: Callable[[], dict[str, float]]) -> None:
    """Answers every line with a round; the first round, which makes what later ones find ready, is not reported."""
    once()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(once()) + "\n")
        sys.stdout.flush()


def rates(prefill: Callable[[], Any], decode: Callable[[int], Any]) -> dict[str, float]:
    """Tokens per second, by the clock and of processor time."""
    found = {}
    for name, tokens, work in (("prefill", PROMPT, prefill), ("decode", DECODED, lambda: decode(DECODED))):
        begin = time.perf_counter(), time.process_time()
        work()
        found[name] = tokens / (time.perf_counter() - begin[0])
        found[f"{name}, processor"] = tokens / (time.process_time() - begin[1])
    return found


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
            mx.async_eval(last)

        def prefill() -> None:
            forward()
            mx.eval(last)

        def decode(tokens: int) -> None:
            for _ in range(tokens):
                before = last
                forward()
                before.item()
            mx.eval(last)

        return rates(prefill, decode)

    return once


def _llama(file: str, threads: int) -> Callable[[], dict[str, float]]:
    from llama_cpp import Llama

    model = Llama(file, n_ctx=512, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)

    def once() -> dict[str, float]:
        model.reset()
        return rates(
            lambda: model.eval(list(range(2, 2 + PROMPT))), lambda tokens: [model.eval([7]) for _ in range(tokens)]
        )

    return once


if __name__ == "__main__":
    main()
