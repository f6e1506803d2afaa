"""Published weights as users run them: `mlx_lm.generate` on a folder of ours, and on its export for mlx-lm.

    make weights
    python benchmarks/real_models.py [smollm2] [gemma3] [--forms float32,bfloat16,8bit,4bit] [--rounds 3] [--write]

Each run is a process: loading, the prompt, tokens one by one. Rounds are interleaved (ours, theirs, ours, …), so that
other load slows both; shown are medians, and the ratio of medians (above 1, axon-compose is faster or smaller). Both
sides have the same numbers: one is built from the other. The files hold 4 or 8 bits, which float32 and bfloat16 unpack.
`first token` is the time from the start of the process until the prompt was read, imports and loading included; `peak`
is the resident memory of the process at its highest, mapped files included, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import kept

WEIGHTS: Final = Path(__file__).parents[1] / "run" / "weights"
FORMS: Final[dict[str, dict[str, Any]]] = {
    "float32": {"dtype": "float32", "unpack": True},
    "bfloat16": {"dtype": "bfloat16", "unpack": True},
    "8bit": {"dtype": "bfloat16", "quantize_bits": 8},
    "4bit": {"dtype": "bfloat16", "quantize_bits": 4},
}
SIDES: Final = ("axon-compose", "mlx-lm")
PROMPT: Final = "Describe, in a few sentences and for a child, what a compiler of a programming language does. " * 6


class Run(NamedTuple):
    """What one process took."""

    first_token: float  # seconds
    prompt_rate: float  # tokens/s
    decode_rate: float  # tokens/s
    peak: float  # MB
    processor: float  # seconds


def generate(folder: Path, tokens: int) -> Run:
    """Run `mlx_lm.generate` once.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(folder), "--trust-remote-code"]
    options = ["--prompt", PROMPT, "--max-tokens", str(tokens), "--temp", "0", "--ignore-chat-template"]
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        out.seek(0)
        text = out.read()
    if status:
        raise SystemExit(text)
    rates = [float(rate) for rate in re.findall(r"([\d.]+) tokens-per-sec", text)]
    made = int(re.findall(r"Generation: (\d+) tokens", text)[0])
    processor = usage.ru_utime + usage.ru_stime
    return Run(wall - made / rates[1], *rates, usage.ru_maxrss * 1024 / 1e6, processor)


def folders(name: str, form: str, place: Path) -> dict[str, Path]:
    """The same numbers as a built folder, and as a folder for mlx-lm's own class."""
    from axon_compose import load
    from axon_compose.checkpoints.export import export
    from axon_compose.checkpoints.folder import write_model

    weights = WEIGHTS / f"{name}.gguf"
    ours, theirs = place / f"{name}-{form}", place / f"{name}-{form}-stock"
    write_model(load(checkpoint=weights), ours, weights=weights, **FORMS[form])
    export(ours, theirs, "mlx-lm")
    return dict(zip(SIDES, (ours, theirs), strict=True))


def measure(name: str, form: str, rounds: int, tokens: int) -> dict[str, list[Run]]:
    """Interleaved runs, after one of each that is not counted."""
    with tempfile.TemporaryDirectory() as place:
        found = folders(name, form, Path(place))
        runs: dict[str, list[Run]] = {side: [] for side in SIDES}
        for number in range(rounds + 1):
            for side in SIDES:
                run = generate(found[side], tokens)
                if number:
                    runs[side].append(run)
        return runs


def summary(runs: dict[str, list[Run]]) -> dict[str, tuple[float, float]]:
    """Of each figure ours, and the ratio: above 1, axon-compose is faster or smaller."""
    ours, theirs = ([statistics.median(column) for column in zip(*runs[side], strict=True)] for side in SIDES)
    found = {}
    for field, mine, other in zip(Run._fields, ours, theirs, strict=True):
        ratio = mine / other if field.endswith("rate") else other / mine
        found[field] = (float(f"{mine:.4g}"), round(ratio, 3))
    return found


def row(name: str, form: str, found: dict[str, tuple[float, float]]) -> str:
    """One line of Markdown: ours, then the ratio."""
    return "| " + " | ".join([name, form, *(f"{mine:.3g} ({ratio:.2f}×)" for mine, ratio in found.values())]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["smollm2", "gemma3"])
    parser.add_argument("--forms", default=",".join(FORMS), help="comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--write", action="store_true", help="keep them in results.json for the page of performance")
    arguments = parser.parse_args()
    print("| model | form | first token, s | prompt, tokens/s | decode, tokens/s | peak, MB | processor, s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.names:
        for form in arguments.forms.split(","):
            found = summary(measure(name, form, arguments.rounds, arguments.tokens))
            print(row(name, form, found), flush=True)
            if arguments.write:
                kept.keep("published", f"{name}/{form}", {"tokens": arguments.tokens, **found})


if __name__ == "__main__":
    main()
