"""One model in several processes on one machine: what each holds, and two of them, a core each, against one process.

    python -m benchmarks.processes [--rounds 5] [--write]

Weights are random, and every way runs the same folder by `mlx_lm` on the loopback, in turns; medians, with the lowest
and the highest round. `--rounds 0` measures memory: what MLX counts, and the peak of the process (`VmHWM`) over what
the same process has after mlx-lm has made the model and its tokenizer without weights. `--write` keeps the figures in
`benchmarks/processes.json`, and `docs/devices.md` shows them.
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
from collections.abc import Iterable, Mapping
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
#: The sizes of SmolLM2-135M, but for heads that four processes can share.
SMOLLM2: Final = {
    "hidden_size": 576,
    "vocab_size": 49152,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
#: What is measured of memory: name to architecture, sizes and options of `build`.
WEIGHED: Final = {
    "llama, 135M, bfloat16": ("llama", SMOLLM2, ("--dtype", "bfloat16")),
    "llama, 135M, 4 bits": ("llama", SMOLLM2, ("--dtype", "bfloat16", "--quantize", "4")),
    "hybrid-demo, float32": ("hybrid-demo", MODELS["hybrid-demo"], ()),
}
#: Name to processes, threads of each, and which group `mlx_lm` is given.
WAYS: Final = {
    "1 process, 1 thread": (1, 1, None),
    "1 process, 2 threads": (1, 2, None),
    "tensor, 2 processes": (2, 1, "tensor_group"),
    "pipeline, 2 processes": (2, 1, "pipeline_group"),
}
#: The same for what processes hold.
LOADED: Final = {
    "1 process": (1, 1, None),
    "tensor, 2 processes": (2, 1, "tensor_group"),
    "tensor, 4 processes": (4, 1, "tensor_group"),
    "pipeline, 2 processes": (2, 1, "pipeline_group"),
    "pipeline, 4 processes": (4, 1, "pipeline_group"),
}
WORKER: Final = """
import gc, json, re, sys, time
import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load, sharded_load
from mlx.utils import tree_flatten
folder, way, prompt, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
group = mx.distributed.init()
def resident(line):
    return 1024 * int(re.search(rf"{line}:\\s+(\\d+)", open("/proc/self/status").read())[1])
if not tokens:
    made = load(folder, lazy=True, trust_remote_code=True)
    del made
    gc.collect()
before = resident("VmRSS")
if way:
    model, _ = sharded_load(folder, **{way: group}, trust_remote_code=True)
else:
    model, _ = load(folder, trust_remote_code=True)
mx.eval(model.parameters())
share = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
said = {"rank": group.rank(), "share": share, "peak": mx.get_peak_memory(), "resident": resident("VmHWM") - before}
for _ in range(2 if tokens else 0):  # the first one warms up
    start = time.perf_counter()
    steps = generate_step(mx.arange(3, 3 + prompt), model, max_tokens=tokens)
    next(steps)
    first = time.perf_counter()
    decoded = len(list(steps))
    said |= {"prompt": prompt / (first - start), "decoded": decoded / (time.perf_counter() - first)}
print(json.dumps(said), flush=True)
"""


def measured(
    folder: Path, processes: int, threads: int, group: str | None, tokens: int = TOKENS
) -> list[dict[str, float]]:
    """What each rank measures of one way; what it holds alone, without tokens."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", WORKER, str(folder), group or "", str(PROMPT), str(tokens)]
    if processes > 1:
        launch = str(Path(sys.executable).with_name("mlx.launch"))
        command = [launch, "-n", str(processes), "-p", str(_port()), "--", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(found) != processes:
        raise SystemExit(done.stdout + done.stderr)
    return sorted(found, key=lambda said: said["rank"])


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def built(folder: Path, name: str, sizes: Mapping[str, int], *options: str) -> Path:
    """A folder with random weights."""
    settings = [part for key, value in sizes.items() for part in ("--set", f"dims.{key}={value}")]
    command = [sys.executable, "-m", "axon_compose", "build", name, "--out", str(folder), "--tokenizer", "bytes-chat"]
    subprocess.run([*command, *settings, *options], check=True, capture_output=True)
    return folder


def run(rounds: int) -> dict[str, Any]:
    """All ways of all models, in turns."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folders = {name: built(Path(place) / name, name, sizes) for name, sizes in MODELS.items()}
        for number in range(rounds):
            for name, folder in folders.items():
                for way in WAYS:
                    figures = found.setdefault(name, {}).setdefault(way, [])
                    figures.append(measured(folder, *WAYS[way])[0])
                    print(f"round {number + 1}: {name}, {way}: {figures[-1]}", file=sys.stderr)
    return {"rounds": rounds, "prompt": PROMPT, "tokens": TOKENS, "cores": os.cpu_count(), "models": found}


def held() -> dict[str, Any]:
    """Bytes of weights that each process has, and of all that it had at once while it loaded them."""
    found = {}
    for name, (architecture, sizes, options) in WEIGHED.items():
        with tempfile.TemporaryDirectory() as place:
            folder = built(Path(place) / "model", architecture, sizes, *options)
            found[name] = {way: measured(folder, *how, tokens=0) for way, how in LOADED.items()}
    return found


def memory_table(results: dict[str, Any]) -> str:
    """What processes hold, as Markdown."""
    lines = [
        "| model | how | weights of a process | at most while loading, by MLX | by the system | over its weights |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, ways in results["held"].items():
        for way, ranks in ways.items():
            most = max(ranks, key=lambda said: said["share"])
            over = max(said["resident"] / said["share"] - 1 for said in ranks)
            figures = " | ".join(f"{most[key] / 1e6:,.1f} MB" for key in ("share", "peak", "resident"))
            lines.append(f"| {name} | {way} | {figures} | {over:.1%} |")
    return "\n".join(lines)


def table(results: dict[str, Any]) -> str:
    """The speeds as Markdown."""
    lines = ["| model | how | tokens/s of a prompt | tokens/s decoded |", "|---|---|---:|---:|"]
    for name, ways in results["models"].items():
        for way, rounds in ways.items():
            speeds = [_spread([each[key] for each in rounds]) for key in ("prompt", "decoded")]
            lines.append(f"| {name} | {way} | {speeds[0]} | {speeds[1]} |")
    return "\n".join(lines)


def _spread(figures: Iterable[float]) -> str:
    low, *_, high = ordered = sorted(figures)
    return f"{statistics.median(ordered):,.0f} ({low:,.0f} to {high:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of speeds; 0 measures memory")
    parser.add_argument("--write", action="store_true", help="keep the figures")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.rounds:
        results |= {"held": held()}
    else:
        results |= run(options.rounds)
        print(table(results))
    if "held" in results:
        print(memory_table(results))
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
