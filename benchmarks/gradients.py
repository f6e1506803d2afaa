"""Forward and backward passes of recurrences: in C++, out of operations of MLX, and mlx-lm's loops over tokens.

    python benchmarks/gradients.py                          # all of it: minutes
    python benchmarks/gradients.py "RWKV-7, 6 x 64" --tokens 512

A step is the gradient of the sum of squares of the outputs by all inputs, compiled. The sides take turns in a process,
and multiply with OpenBLAS where MLX would with the reference BLAS. Times are those of the clock and of the processor,
whose figure a busy machine changes less. It needs axon-native; mlx-lm's loops take up to some GB.
`plugins/axon-native/README.md` has the figures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final, NamedTuple

import mlx.core as mx
from bench_sides import SIDES

from axon_compose.machine.blas import use_fast_blas
from axon_compose.machine.units import human
from axon_compose.model._freed import keep_freed
from axon_core.kernels import _native

ITEMS: Final = (
    "selective scan, 512 x 16",
    "Mamba-2 scan, 12 x 64 x 64",
    "gated delta rule, 6 x 64",
    "Kimi delta rule, 6 x 64",
    "RWKV-7, 6 x 64",
    "lightning attention, 6 x 64",
    "RG-LRU, 512",
)


class Step(NamedTuple):
    """What one took: seconds of the clock and of the processor, and bytes beyond the inputs at most."""

    clock: float
    processor: float
    peak: int


class Contestant:
    """A side of an item, its step compiled."""

    def __init__(self, side: Callable[..., Any], inputs: list[mx.array], *, native: bool) -> None:
        self.inputs, self.native = inputs, native
        self.gradient = mx.compile(mx.grad(lambda arrays: mx.square(_outputs(side(*arrays))).sum()))
        self.steps: list[Step] = []

    def run(self) -> None:
        """One step more; the first compiles and does not count."""
        installed = _native._installed
        if not self.native:
            _native._installed = lambda: None  # type: ignore[assignment]
        try:
            mx.clear_cache()
            mx.reset_peak_memory()
            before, clock, processor = mx.get_active_memory(), time.perf_counter(), time.process_time()
            mx.eval(self.gradient(self.inputs))
            spent = time.perf_counter() - clock, time.process_time() - processor
            self.steps.append(Step(*spent, mx.get_peak_memory() - before))
        finally:
            _native._installed = installed

    def median(self, what: str) -> float:
        """Over all steps but the first."""
        return median(getattr(step, what) for step in self.steps[1:])

    def text(self) -> str:
        """Milliseconds of the clock, the least and the most, and of the processor."""
        clock = [1000 * step.clock for step in self.steps[1:]]
        spread = f"{median(clock):.0f} ({min(clock):.0f} to {max(clock):.0f})"
        return f"{spread}, {1000 * self.median('processor'):.0f}"


def _outputs(found: Any) -> mx.array:
    return found if isinstance(found, mx.array) else found[0]


def row(item: str, tokens: int, rounds: int, *, alone: bool) -> str:
    """A line of the table: what each took, how many times axon-native's the others are, and peaks."""
    make, ours, theirs = SIDES[item]()
    inputs = make(tokens)
    mx.eval(inputs)
    sides = [Contestant(ours, inputs, native=True), Contestant(ours, inputs, native=False)]
    if not alone:
        sides.append(Contestant(theirs, inputs, native=False))
    for _ in range(rounds + 1):
        for side in sides:
            side.run()
    cells = [item, *(side.text() for side in sides)]
    for other in sides[1:]:
        ratios = [other.median(what) / sides[0].median(what) for what in ("clock", "processor")]
        cells.append(", ".join(f"{ratio:.1f}x" for ratio in ratios))
    cells.append(" / ".join(human(int(side.median("peak"))) for side in sides))
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", metavar="ITEM", help="only these")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without mlx-lm")
    arguments = parser.parse_args()
    use_fast_blas()  # no model is made here, which would see to this
    keep_freed()
    if _native.native() is None:
        parser.error("axon-native is not installed, or MLX's device is not the CPU")
    names = ["axon-native", "operations of MLX", *([] if arguments.alone else ["mlx-lm"])]
    heads = ["ms (of the processor)", *names, *(f"of {name}" for name in names[1:]), "peak"]
    sys.stdout.write(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for item in arguments.items or ITEMS:
        sys.stdout.write(row(item, arguments.tokens, arguments.rounds, alone=arguments.alone))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
