"""All that `docs/performance.md` shows, measured with the BLAS of MLX's wheel, with OpenBLAS, and with axon-native.

The latter two where they are installed (`make native`).

    python benchmarks/everything.py                     # all of it: an hour and more on two cores
    python benchmarks/everything.py layers              # a part: layers, families, transformers, growth or hybrid
    python benchmarks/everything.py families/llama      # a single one

Results go into `benchmarks/results.json`, those that were there before are kept; `python docs/performance_page.py`
writes the page. What else the machine does slows all sides alike, for their rounds are interleaved, but it widens the
spread: leave it alone while this runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import bench_layers
import bench_models
from bench_models import Effort

from axon_compose.proof.bench import Contest
from axon_compose.proof.doctor import examine

RESULTS: Final = Path(__file__).parent / "results.json"
#: The wheel's own BLAS; OpenBLAS in its place; the recurrences in C++ besides.
REGIMES: Final = ("stock", "openblas", "native")
Job = Callable[[], Contest]


def jobs(regime: str) -> Iterator[tuple[str, Job]]:
    """Names and what measures them."""
    native = regime == "native"
    for item in bench_layers.ITEMS:
        if item.recurrent or not native:
            measured = partial(bench_layers.measured, item, 3, patient=regime == "openblas", progress=report)
            yield f"layers/{item.name}", measured
    for name in bench_models.RECURRENT if native else bench_models.FAMILIES:
        yield f"families/{name}", partial(bench_models.measured, name, ("mlx-lm",), Effort(rounds=5), report)
    if regime == "stock":
        return  # torch brings a fast BLAS of its own, and long prompts take too long with the slow one
    yield "hybrid/bit-axon", partial(bench_models.hybrid, Effort(prompts=(128, 512, 2048)), report)
    if native:
        return
    compared = Effort(prompts=(512,), training=True)
    for name in bench_models.TRANSFORMERS:
        yield f"transformers/{name}", partial(bench_models.measured, name, ("transformers",), compared, report)
    growing = Effort(prompts=(128, 512, 2048, 8192), batches=())
    for name in bench_models.GROWTH:
        yield f"growth/{name}", partial(bench_models.measured, name, ("mlx-lm",), growing, report)


def report(name: str, number: int, rounds: int) -> None:
    """One line of a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{name}, round {number} of {rounds}" if name else "\r\x1b[K")
        sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="layers, families, transformers, growth, hybrid")
    parser.add_argument("--regime", choices=REGIMES, help="only this one, in the surroundings that there are")
    arguments = parser.parse_args()
    if arguments.regime:
        measure(arguments.regime, arguments.parts)
        return
    for regime in REGIMES:
        if (environment := surroundings(regime)) is not None:
            command = [sys.executable, __file__, "--regime", regime, *arguments.parts]
            subprocess.run(command, check=True, env=os.environ | environment)


def surroundings(regime: str) -> dict[str, str] | None:
    """Variables of the environment that make it; None where something is not installed."""
    library, native = find_library("openblas"), find_spec("axon_native")
    if regime == "stock":
        return {"AXON_NATIVE": "0", "AXON_BLAS": "wheel"}
    if library is None or (regime == "native" and native is None):
        return None
    return {"LD_PRELOAD": library, "AXON_NATIVE": "1" if regime == "native" else "0"}


def measure(regime: str, parts: list[str]) -> None:
    """Measure in this regime what the parts name, and keep what was measured of others."""
    for name, job in jobs(regime):
        if parts and not any(name == part or name.startswith(f"{part}/") for part in parts):
            continue
        found = job()
        sys.stdout.write("\n".join([f"{regime} {name}", *lines(found)]) + "\n")
        sys.stdout.flush()
        keep(regime, name, found)


def lines(found: Contest) -> Iterator[str]:
    """Short lines with all ratios."""
    for line in found.lines:
        ratios = [line.ratio(at) for at in range(1, len(found.subjects))]
        what = f"{line.kind} {line.workload.prompt} x {line.workload.batch}"
        yield f"  {what:20} " + "  ".join("-" if ratio is None else f"{ratio:.2f}x" for ratio in ratios)


def keep(regime: str, name: str, found: Contest) -> None:
    """Put a result beside the others, at once: this may be stopped at any time."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = {finding.name: finding.value for finding in examine()}
    results.setdefault("machines", {})[regime] = machine
    day = datetime.now(UTC).date().isoformat()
    results.setdefault(regime, {})[name] = {"day": day, "mlx": version("mlx"), **brief(found.to_dict())}
    RESULTS.write_text(dumped(results))


def brief(result: dict[str, Any]) -> dict[str, Any]:
    """Without what the page has no use for."""
    for line in result["lines"]:
        line["workload"] = {name: line["workload"][name] for name in ("prompt", "batch", "training")}
        line["ratios"] = [ratio and round(ratio, 4) for ratio in line["ratios"]]
        line["measurements"] = [_of(line["kind"], measured) for measured in line["measurements"]]
    return result


def _of(kind: str, measured: dict[str, Any]) -> dict[str, Any]:
    if measured.get("fault"):
        return {"fault": measured["fault"]}
    if kind == "memory":
        return {"peak_bytes": measured["peak_bytes"]}
    speed = measured[f"{kind}_tokens_per_second"]
    return {f"{kind}_tokens_per_second": {name: float(f"{speed[name]:.5g}") for name in ("median", "least", "most")}}


def dumped(results: dict[str, Any]) -> str:
    """JSON with a line for each result, for a change of one should be a change of a line."""
    parts = []
    for part, entries in results.items():
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        parts.append(f"{json.dumps(part)}: {{\n{rows}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
