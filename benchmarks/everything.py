"""All that `docs/performance.md` shows of models that are made for it, in three surroundings.

Each side as pip installs it; with OpenBLAS under both, where the system has one; and with axon-native besides, where it
is installed (`make native`). Published weights have scripts of their own: `real_models.py` and `quantised.py`.

    python benchmarks/everything.py                     # all of it: an hour and more on two cores
    python benchmarks/everything.py layers              # a part: layers, families, transformers, growth or hybrid
    python benchmarks/everything.py families/llama      # a single one
    python benchmarks/everything.py --regime plain      # in one of the surroundings: plain, openblas or native

Results go into `benchmarks/results.json`, those that were there before are kept; `python docs/performance_page.py`
writes the page. What else the machine does slows all sides alike, for their rounds are interleaved, but it widens the
spread: leave it alone while this runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

import bench_layers
import bench_models
import kept
from bench_models import Effort

from axon_compose.proof.bench import Contest
from axon_compose.proof.doctor import examine

#: As pip installs them; one OpenBLAS for both sides; the kernels in C++ besides.
REGIMES: Final = ("plain", "openblas", "native")
Job = Callable[[], Contest]


def jobs(regime: str) -> Iterator[tuple[str, Job]]:
    """Names and what measures them."""
    native = regime == "native"
    for item in bench_layers.ITEMS:
        if item.recurrent or not native:
            measured = partial(bench_layers.measured, item, 3, patient=regime == "openblas", progress=report)
            yield f"layers/{item.name}", measured
    for name in bench_models.FAMILIES:
        yield f"families/{name}", partial(bench_models.measured, name, ("mlx-lm",), Effort(rounds=5), report)
    # Long prompts take mlx-lm too long without OpenBLAS; torch has a fast BLAS everywhere.
    yield "hybrid/bit-axon", partial(bench_models.hybrid, Effort(prompts=_HYBRID[regime]), report)
    if regime == "plain":
        compared = Effort(prompts=(512,), training=True)
        for name in bench_models.TRANSFORMERS:
            yield f"transformers/{name}", partial(bench_models.measured, name, ("transformers",), compared, report)
    if regime == "openblas":
        growing = Effort(prompts=(128, 512, 2048, 8192), batches=())
        for name in bench_models.GROWTH:
            yield f"growth/{name}", partial(bench_models.measured, name, ("mlx-lm",), growing, report)


_HYBRID: Final = {"plain": (128, 512), "openblas": (128, 512, 2048), "native": (128, 512, 2048)}


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
    if regime == "plain":
        return {"AXON_NATIVE": "0"}
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
    """Put a result beside the others."""
    kept.keep("machines", regime, {finding.name: finding.value for finding in examine()})
    kept.keep(regime, name, {"mlx": version("mlx"), **brief(found.to_dict())})


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


if __name__ == "__main__":
    main()
