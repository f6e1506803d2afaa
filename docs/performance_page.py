"""The page of performance: what `benchmarks/everything.py` has measured, as tables and pictures.

python docs/performance_page.py    # write docs/performance.md and its pictures from benchmarks/results.json
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from pathlib import Path
from typing import Any, Final

from performance_pictures import PICTURES, pictures
from performance_results import REGIMES, Results, load_results, median_of, part_of, ratio_of

PAGE: Final = Path(__file__).resolve().parent / "performance.md"

_INTRODUCTION: Final = """\
# Performance

<!-- Written by `python docs/performance_page.py` from benchmarks/results.json; do not edit. -->

Speed and memory against other implementations on one machine: ratios carry over between machines, absolute figures
do not. Above 1, axon-compose is faster or takes less memory. `make bench` measures all of it again, and
[`axon-compose bench`](cli.md#bench) measures your own file.

* Both sides compute on the same numbers: the same weights for whole families, the same inputs for recurrences.
  Single layers have their own random weights.
* Each side has its own process. Rounds are interleaved (A B A B), so that other load slows both alike; figures are
  medians of three rounds (families: five), after one discarded warm-up round.
* Everything is float32 on the CPU; nothing here was run on Metal or CUDA.
* MLX's Linux wheel brings the reference BLAS; results with OpenBLAS are shown beside it. Both sides use the same one.
* The figures were measured before axon-compose took OpenBLAS by itself, as it does on Linux now as soon as a model is
  made. The columns *the wheel's BLAS* are for `AXON_BLAS=wheel`, and *OpenBLAS* for the default. `mlx_lm` without a
  model of ours keeps the wheel's BLAS. [`axon-compose doctor`](cli.md#doctor) says which one a machine has.
* Memory is the most that MLX's arrays took, weights included.
* axon-compose models let MLX keep freed memory on the CPU, which makes long prompts 1.1 to 1.25 times as fast. For
  mlx-lm, `mlx.core.set_cache_limit(512 << 20)` would do the same; it runs here with its defaults.
* Recurrences run in MLX operations, except in [the last section](#with-axon-native).
"""


def page() -> str:
    """The whole page."""
    results = load_results()
    parts = [_INTRODUCTION, _machine(results), _families(results), _layers(results)]
    parts += [_others(results), _hybrid(results), _growth(results), _native(results)]
    return "\n".join(part for part in parts if part)


def _machine(results: Results) -> str:
    machines = {regime: results["machines"][regime] for regime in REGIMES if regime in results["machines"]}
    first = next(iter(machines.values()))
    rows = [(name, first[name].split(", 2")[0]) for name in ("system", "processor", "mlx", "mlx-lm")]
    rows += [(REGIMES[regime], machine["BLAS"]) for regime, machine in machines.items()]
    days = [result["day"] for regime in machines for result in results[regime].values()]
    rows.append(("measured", " to ".join(sorted({min(days), max(days)}))))
    return _table(("machine", ""), rows)


def _families(results: Results) -> str:
    """Every family that mlx-lm has, on its weights."""
    figures = [("prefill", 1), ("decode", 1), ("decode", 8)]
    heads, means, rows = ["family"], ["geometric mean"], {}
    for regime, title in REGIMES.items():
        for kind, batch in figures:
            found = {
                name: ratio_of(result, kind, batch=batch)
                for name, result in part_of(results, regime, "families").items()
            }
            if not found:
                continue
            heads.append(f"{_figure_name(kind, batch)}, {title}")
            means.append(f"**{_mean(list(found.values())):.2f}×**")
            for name, ratio in found.items():
                rows.setdefault(name, [name]).append(_times(ratio))
    text = (
        "## Families against mlx-lm\n\n"
        "mlx-lm's own class of each family on the same weights, in small sizes (`benchmarks/families.yaml`: 384 wide,\n"
        "4 to 7 layers): a prompt of 128 tokens, and tokens that are decoded one by one, alone and for 8 sequences.\n\n"
        "![Ratios by family](pictures/performance-families.svg)\n\n"
    )
    return text + _table(heads, [*rows.values(), means])


def _layers(results: Results) -> str:
    """Single layers and recurrences."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for regime in REGIMES:
        for name, result in part_of(results, regime, "layers").items():
            for line in result["lines"]:
                if line["kind"] == "memory":
                    continue
                work = line["workload"]
                row = rows.setdefault((name, result["subjects"][1], _what(work)), ["", "", "", ""])
                at = 2 * list(REGIMES).index(regime)
                row[at] = _milliseconds(line, 0)
                row[at + 1] = _times(line["ratios"][0])
                memory = ratio_of(result, "memory", prompt=work["prompt"], training=work["training"])
                row.append(_times(memory)) if len(row) == 4 else None
    heads = ["here", "against", "tokens"]
    for title in REGIMES.values():
        heads += [f"ms, {title}", "ratio"]
    text = (
        "## Recurrences, windows and experts\n\n"
        "One call of a layer or of its recurrence for one sequence. Sizes are those of a model 384 wide; experts are\n"
        "512 to 1024. Where a peer takes minutes, it was measured once, and with one BLAS.\n\n"
    )
    return text + _table([*heads, "memory"], [[*key, *row] for key, row in rows.items()])


def _others(results: Results) -> str:
    """transformers on torch."""
    rows = []
    for name, result in part_of(results, "openblas", "transformers").items():
        row = [name]
        for line in result["lines"]:
            if line["kind"] != "memory":
                row += [_speed(line, 0), _times(line["ratios"][0])]
        rows.append(row)
    if not rows:
        return ""
    text = (
        "## Against transformers on torch\n\n"
        "Tokens a second and ratios, with OpenBLAS under MLX; torch has its own BLAS, and CPU kernels that MLX\n"
        "lacks.\n\n"
    )
    heads = ["family", "prefill of 512", "ratio", "decode, 1", "ratio", "decode, 8", "ratio", "training, 512", "ratio"]
    return text + _table(heads, rows)


def _hybrid(results: Results) -> str:
    """The hybrid of 24 layers."""
    text = (
        "## A hybrid of 24 layers\n\n"
        "Eight layers of state space, eight of windows with experts, eight of state space with experts, 100M\n"
        "parameters; and two hybrids of about its size in other implementations. Tokens a second, with OpenBLAS. A\n"
        "machine of this kind could do 1,430 tokens a second of prefill at most, and 139 of decoding.\n\n"
    )
    table = _hybrid_table(results, "openblas")
    return text + table if table else ""


def _hybrid_table(results: Results, regime: str) -> str:
    found = part_of(results, regime, "hybrid").get("bit-axon")
    if not found:
        return ""
    rows = []
    for line in found["lines"]:
        if line["kind"] == "memory":
            continue
        work = line["workload"]
        row = [f"{line['kind']}, {work['prompt'] if line['kind'] == 'prefill' else work['batch']}"]
        row += [_speed(line, at) for at in range(len(line["measurements"]))]
        rows.append(row + [_times(ratio) for ratio in line["ratios"]])
    peers = found["subjects"][1:]
    return _table(["", *found["subjects"], *(f"ratio to {peer}" for peer in peers)], rows)


def _native(results: Results) -> str:
    """The same with the recurrences in C++."""
    layers, families = (part_of(results, "native", part) for part in ("layers", "families"))
    if not layers:
        return ""
    rows = []
    for name, result in layers.items():
        for line in result["lines"]:
            if line["kind"] != "memory":
                work = line["workload"]
                memory = ratio_of(result, "memory", prompt=work["prompt"], training=work["training"])
                row = [name, result["subjects"][1], _what(work), _milliseconds(line, 0)]
                rows.append([*row, _times(line["ratios"][0]), _times(memory)])
    text = (
        "## With axon-native\n\n"
        "The same with OpenBLAS and the recurrences in C++, an optional distribution (`make native`,\n"
        "[plugins/axon-native](../plugins/axon-native/README.md)). Training was measured before it had\n"
        "backward passes of its own, whose figures are in its README.\n\n"
    )
    figures = [("prefill", 1), ("decode", 1), ("decode", 8)]
    several = [
        [name, *(_times(ratio_of(result, kind, batch=batch)) for kind, batch in figures)]
        for name, result in families.items()
    ]
    tables = [
        _table(["here", "against", "tokens", "ms", "ratio", "memory"], rows),
        _table(["family, against mlx-lm", "prefill of 128", "decode 1", "decode 8"], several) if several else "",
        _hybrid_table(results, "native"),
    ]
    return text + "\n".join(table for table in tables if table)


def _growth(results: Results) -> str:
    rows = []
    for name, result in part_of(results, "openblas", "growth").items():
        for line in result["lines"]:
            if line["kind"] != "prefill":
                continue
            prompt = line["workload"]["prompt"]
            memory = ratio_of(result, "memory", prompt=prompt)
            rows.append(
                [name, f"{prompt:,}", _speed(line, 0), _speed(line, 1), _times(line["ratios"][0]), _times(memory)]
            )
    if not rows:
        return ""
    text = (
        "## How cost grows with the prompt\n\n"
        "Tokens a second of prefill, with OpenBLAS: a line that stays level is linear in length.\n\n"
        "![Prefill by length](pictures/performance-growth.svg)\n\n"
    )
    return text + _table(["family", "tokens", "axon-compose", "mlx-lm", "ratio", "memory"], rows)


def _what(work: Mapping[str, Any]) -> str:
    return f"{'forward and backward' if work['training'] else 'forward'}, {work['prompt']:,}"


def _speed(line: Mapping[str, Any], at: int) -> str:
    speed = median_of(line, at)
    return "–" if speed is None else f"{speed:,.0f}" if speed >= 100 else f"{speed:,.3g}"


def _milliseconds(line: Mapping[str, Any], at: int) -> str:
    speed = median_of(line, at)
    return "–" if speed is None else f"{1000 * line['workload']['prompt'] * line['workload']['batch'] / speed:,.3g}"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:.{0 if ratio >= 20 else 1 if ratio >= 5 else 2}f}×"


def _mean(ratios: list[float | None]) -> float:
    known = [ratio for ratio in ratios if ratio]
    return exp(sum(map(log, known)) / len(known))


def _figure_name(kind: str, batch: int) -> str:
    return kind if kind == "prefill" else f"decode {batch}"


def _table(heads: Any, rows: Any) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for name, draw in pictures():
        draw(PICTURES / f"{name}.svg")
