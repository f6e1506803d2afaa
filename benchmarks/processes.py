"""One model in two processes, a core each, against one process: speed, and memory of a process.

    python -m benchmarks.processes [--rounds 5] [--write]

Weights are random, and every way runs the same folder by `mlx_lm` on the loopback, in turns; medians, with the lowest
and the highest round. `--write` keeps the figures in `benchmarks/processes.json`, and `docs/devices.md` shows them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "processes.json"
PROMPT, TOKENS = 256, 16
#: A dense model and a hybrid of state space layers, windows and experts, some ten million parameters each.
MODELS: Final = {
    "llama": {
        "hidden_size": 512,
        "vocab_size": 4096,
        "num_hidden_layers": 4,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
    "hybrid-demo": {"hidden_size": 384, "vocab_size": 4096},
}
#: Name to processes, threads of each, and which group `mlx_lm` is given.
WAYS: Final = {
    "1 process, 1 thread": (1, 1, None),
    "1 process, 2 threads": (1, 2, None),
    "tensor, 2 processes": (2, 1, "tensor_group"),
    "pipeline, 2 processes": (2, 1, "pipeline_group"),
}
WORKER: Final = """
import json, sys
import mlx.core as mx
from mlx_lm import load, stream_generate
from mlx_lm.utils import sharded_load
from axon_compose.machine.memory import peak
folder, way, prompt, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
group = mx.distributed.init()
before = peak()
if way:
    model, tokenizer = sharded_load(folder, **{way: group}, trust_remote_code=True)
else:
    model, tokenizer = load(folder, trust_remote_code=True)
for _ in range(2):  # the first one warms up
    *_, last = stream_generate(model, tokenizer, list(range(3, 3 + prompt)), max_tokens=tokens)
said = {"prompt": last.prompt_tps, "decoded": last.generation_tps, "memory": peak() - before}
print(json.dumps(said) if group.rank() == 0 else "", flush=True)
"""


def measured(folder: Path, way: str) -> dict[str, float]:
    """What rank 0 measures of one way."""
    processes, threads, group = WAYS[way]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", WORKER, str(folder), group or "", str(PROMPT), str(TOKENS)]
    if processes > 1:
        launch = str(Path(sys.executable).with_name("mlx.launch"))
        command = [launch, "-n", str(processes), "-p", str(_port()), "--", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, float] = json.loads(lines[0])
    return found


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def built(folder: Path, name: str) -> Path:
    """A folder with random weights, whose texts do not end early."""
    sizes = [part for key, value in MODELS[name].items() for part in ("--set", f"dims.{key}={value}")]
    command = [sys.executable, "-m", "axon_compose", "build", name, "--out", str(folder), "--tokenizer", "bytes-chat"]
    subprocess.run([*command, *sizes], check=True, capture_output=True)
    config = folder / "config.json"
    written = json.loads(config.read_text()) | {"eos_token_id": MODELS[name]["vocab_size"] - 1}
    config.write_text(json.dumps(written))
    return folder


def run(rounds: int) -> dict[str, Any]:
    """All ways of all models, in turns."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folders = {name: built(Path(place) / name, name) for name in MODELS}
        for number in range(rounds):
            for name, folder in folders.items():
                for way in WAYS:
                    figures = found.setdefault(name, {}).setdefault(way, [])
                    figures.append(measured(folder, way))
                    print(f"round {number + 1}: {name}, {way}: {figures[-1]}", file=sys.stderr)
    return {"rounds": rounds, "prompt": PROMPT, "tokens": TOKENS, "cores": os.cpu_count(), "models": found}


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| model | how | tokens/s of a prompt | tokens/s decoded | memory of a process |",
        "|---|---|---:|---:|---:|",
    ]
    for name, ways in results["models"].items():
        for way, rounds in ways.items():
            speeds = [_spread([each[key] for each in rounds]) for key in ("prompt", "decoded")]
            memory = statistics.median(each["memory"] for each in rounds) / 1e6
            lines.append(f"| {name} | {way} | {speeds[0]} | {speeds[1]} | {memory:,.0f} MB |")
    return "\n".join(lines)


def _spread(figures: Iterable[float]) -> str:
    low, *_, high = ordered = sorted(figures)
    return f"{statistics.median(ordered):,.0f} ({low:,.0f} to {high:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the figures")
    options = parser.parse_args()
    results = run(options.rounds)
    print(table(results))
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
