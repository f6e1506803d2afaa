"""Steps of training of a model of 20M parameters, in turns: ours, mlx_lm's, and those of transformers in torch.

    python benchmarks/bench_training.py --torch TORCH/bin/python --model llama

All begin with the same weights, a Granite 4 hybrid or a llama that transformers has drawn, and learn from the same
batches of the Python texts by AdamW: `axon-compose train` without axon-native and, where it is installed, with it,
`mlx_lm.lora --fine-tune-type full` on our folder, the same on the folder that an older checkout of axon-compose
(`--before`) writes, and the model of transformers itself. Each has a process of its own and makes a step when it is its
turn; the first one compiles and does not count. Seconds of the processor, all threads together, depend less on other
programs of the machine than those of the clock. mlx_lm leaves embedding, head and final norm as they are, so its loss
is that of another training.

With the BLAS of MLX's wheel a step takes minutes: that side makes one, of one sequence. `--checkpoint` computes every
layer again in the backward pass, to compare memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from axon_compose import load
from axon_compose.analysis.cost import cost
from axon_compose.learn.data import Sources, TextBatches, prepare
from axon_compose.machine.native import SWITCH, native

WORKER: Final = str(Path(__file__).resolve().with_name("training_sides.py"))
ROOT: Final = Path(WORKER).parents[1]
#: How much of the texts a run of batches has: more steps than are made.
_ROWS: Final = 16


@dataclass
class Side:
    """A process that makes steps.

    Attributes:
        name: In the table.
        command: Of the process.
        environment: Beside that of this process.
        sequences: Of a step.
        rounds: In which it takes part.
        steps: What each took, the first one too.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    sequences: int = 8
    rounds: int = 1000
    steps: list[dict[str, Any]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def step(self) -> None:
        """One step more; the first starts the process."""
        if self.process is None:
            command = [*self.command, "--sequences", str(self.sequences)]
            environment = os.environ | self.environment
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            print(f"# {self.name} has ended: {self.process.wait()}", file=sys.stderr)
            self.rounds = 0
            return
        self.steps.append(json.loads(line))
        print(f"# {self.name}: {line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def median(self, what: str) -> float:
        """Over the steps but the first, for each sequence of it."""
        return median(step[what] for step in self.steps[1:]) / self.sequences


def written_rows(folder: Path, batch: int, length: int) -> Path:
    """Batches of the Python texts as a file, and what they took beside what their steps will."""
    began = time.perf_counter()
    prepared = prepare(Sources(("python-docs",)), "bpe:8192", cache=folder / "cache")
    batches = TextBatches(prepared, batch=batch, length=length, seed=0)
    ready = time.perf_counter()
    made = [batches.at(step) for step in range(_ROWS)]
    rows = np.stack([np.concatenate([np.array(each.tokens), np.array(each.targets[:, -1:])], 1) for each in made])
    each = (time.perf_counter() - ready) / _ROWS
    print(
        f"tokenizer and {len(prepared.tokens):,} tokens made in {ready - began:.2f} s, a batch in {1e3 * each:.1f} ms"
    )
    np.save(folder / "rows.npy", rows)
    return folder / "rows.npy"


def built(checkpoint: Path, out: Path, checkout: Path) -> None:
    """Write a checkpoint as the folder that a checkout makes of it."""
    command = [sys.executable, "-m", "axon_compose", "build", str(checkpoint), "--out", str(out)]
    command += ["--dtype", "float32", "--tokenizer", "bytes"]
    subprocess.run(command, check=True, env=os.environ | of(checkout), stdout=sys.stderr)


def of(checkout: Path) -> dict[str, str]:
    """The environment in which a checkout is imported."""
    before = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "plugins"), *[before] * bool(before)])}


def table(sides: list[Side], length: int) -> None:
    """Speeds, and how many times as fast the first one is; memory; losses. Of sides that made a step which counts."""
    sides = [side for side in sides if len(side.steps) > 1]
    first = sides[0]
    print("| | tokens/s | s of the processor a sequence | ours is faster | by the clock | MLX's peak | process |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for side in sides:
        faster = (f"{side.median(what) / first.median(what):.2f}x" for what in ("processor", "clock"))
        peak = "-" if side.steps[-1]["peak"] is None else f"{max(s['peak'] for s in side.steps[1:]) / 1e9:.2f} GB"
        cells = [f"{length / side.median('clock'):,.0f}", f"{side.median('processor'):.2f}", *faster, peak]
        print(f"| {side.name} | {' | '.join(cells)} | {side.steps[-1]['resident'] / 1e9:.2f} GB |")
    for side in sides:
        print(f"losses, {side.name}: {', '.join(format(step['loss'], '.4f') for step in side.steps)}")


def sides(given: argparse.Namespace, folder: Path) -> list[Side]:
    """Those that were asked for, ours first; their models are written into a folder."""
    rows = str(written_rows(folder, given.batch, given.length))
    checkpoint, now, old = folder / "checkpoint", folder / "now", folder / "old"
    subprocess.run(
        [given.torch, WORKER, "checkpoint", str(checkpoint), "--model", given.model], check=True, stdout=sys.stderr
    )
    built(checkpoint, now, ROOT)

    def side(name: str, python: str, kind: str, model: Path, environment: dict[str, str], **more: Any) -> Side:
        command = [python, WORKER, kind, str(model), rows, *["--checkpoint"] * given.checkpoint]
        return Side(name, command, environment, **{"sequences": given.batch} | more)

    alone = {SWITCH: "0"}
    found = [side("axon-compose", sys.executable, "axon", now, of(ROOT) | alone)]
    if native() is not None:
        found.append(side("axon-compose with axon-native", sys.executable, "axon", now, of(ROOT)))
    if not given.without_mlx_lm:
        found.append(side("mlx_lm, our folder", sys.executable, "mlx_lm", now, of(ROOT) | alone))
    found.append(side("transformers in torch", given.torch, "torch", checkpoint, {}))
    if given.before:
        built(checkpoint, old, given.before)
        before = of(given.before)
        found.append(side("mlx_lm, the older folder", sys.executable, "mlx_lm", old, before))
        if given.wheel:
            wheel = before | {"AXON_BLAS": "wheel"}
            found.append(
                side("the same, the wheel's BLAS", sys.executable, "mlx_lm", old, wheel, sequences=1, rounds=1)
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, help="python of an environment with torch and transformers")
    parser.add_argument("--model", choices=["hybrid", "llama"], default="hybrid", help="(default: hybrid)")
    parser.add_argument("--without-mlx-lm", action="store_true", help="leave out the training loop of mlx_lm")
    parser.add_argument("--before", type=Path, help="an older checkout of axon-compose")
    parser.add_argument("--wheel", action="store_true", help="also run that with the BLAS of MLX's wheel")
    parser.add_argument("--checkpoint", action="store_true", help="compute each layer again in the backward pass")
    parser.add_argument("--batch", type=int, default=8, help="(default: 8)")
    parser.add_argument("--length", type=int, default=512, help="(default: 512)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        all_ = sides(given, Path(place))
        try:
            for turn in range(given.rounds + 1):
                for side in all_:
                    if turn <= side.rounds:
                        side.step()
        finally:
            for side in all_:
                side.end()
        table(all_, given.length)
        sheet = cost(
            load(str(Path(place) / "now")).plan(), context=given.length, batch=given.batch, dtype="float32",
            training=True, segment=int(given.checkpoint),
        )  # fmt: skip
        print(f"predicted by `cost --training`: {sheet.contexts[0].needed_bytes / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
