"""What `benchmarks/everything.py` has kept, as the page of performance and its pictures read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent.parent / "benchmarks" / "results.json"
#: Surroundings that are set side by side.
REGIMES: Final = {"plain": "as installed", "openblas": "OpenBLAS for both"}

Results = Mapping[str, Any]


def load_results() -> Results:
    """All of it: regime, name, contest."""
    found: Results = json.loads(RESULTS.read_text())
    return found


def part_of(results: Results, regime: str, part: str) -> dict[str, Any]:
    """Results of a part by their names, in the order in which they are measured."""
    every = results.get(regime, {}).items()
    return {name.partition("/")[2]: result for name, result in every if name.startswith(f"{part}/")}


def lines_of(result: Mapping[str, Any], kind: str, **work: Any) -> Iterator[Mapping[str, Any]]:
    for line in result["lines"]:
        if line["kind"] == kind and all(line["workload"][name] == value for name, value in work.items()):
            yield line


def ratio_of(result: Mapping[str, Any], kind: str, **work: Any) -> float | None:
    found = next(lines_of(result, kind, **work), None)
    return None if found is None else found["ratios"][0]


def median_of(line: Mapping[str, Any], at: int) -> float | None:
    measured = line["measurements"][at].get(f"{line['kind']}_tokens_per_second")
    return None if measured is None else float(measured["median"])


def times(ratio: float | None) -> str:
    """A ratio, as the page writes it."""
    if ratio is None:
        return "–"
    return f"{ratio:.{0 if ratio >= 20 else 1 if ratio >= 5 else 2}f}×"


def table(heads: Any, rows: Any) -> str:
    """A table in Markdown, its first column to the left."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
