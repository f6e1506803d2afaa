"""The page of performance: what `benchmarks/everything.py` has measured, as tables and pictures.

python docs/performance_page.py    # write docs/performance.md and its pictures from benchmarks/results.json
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from pathlib import Path
from typing import Any, Final

from performance_pictures import PICTURES, pictures
from performance_published import published, quantised
from performance_results import REGIMES, Results, load_results, median_of, part_of, ratio_of, table, times

PAGE: Final = Path(__file__).resolve().parent / "performance.md"

_INTRODUCTION: Final = """\
# Performance

<!-- Written by `python docs/performance_page.py` from benchmarks/results.json; do not edit. -->

Speed and memory against other implementations on one machine: ratios carry over between machines, absolute figures
do not. Above 1, axon-compose is faster or takes less memory. `make bench` measures again what this page has of models
that are made for it, and [`axon-compose bench`](cli.md#bench) measures your own file.

* **As installed** is what `pip install` gives on Linux: axon-compose, which multiplies with OpenBLAS, without
  axon-native; mlx-lm, whose wheel of MLX multiplies with the reference BLAS.
* **OpenBLAS for both** is the same with OpenBLAS under mlx-lm too, so that nobody has to wonder what the BLAS alone
  makes of it.
* **With axon-native**, its kernels in C++ come on top, as `make run` builds them where there is a compiler.
* Both sides compute on the same numbers: the same weights for whole families, the same inputs for recurrences.
  Single layers have their own random weights.
* Each side has its own process. Rounds are interleaved (A B A B), so that other load slows both alike; figures are
  medians of three rounds (families: five), after one discarded warm-up round.
* Everything is on the CPU, and float32 unless a table says otherwise; nothing here was run on Metal or CUDA.
* Memory is the most that MLX's arrays took, weights included.
* axon-compose models let MLX keep freed memory on the CPU, which makes long prompts 1.1 to 1.25 times as fast. For
  mlx-lm, `mlx.core.set_cache_limit(512 << 20)` would do the same; it runs here with its defaults.
"""


def page() -> str:
    """The whole page."""
    results = load_results()
    parts = [_INTRODUCTION, _machine(results), _families(results), _hybrid(results), published(results)]
    parts += [quantised(results), _others(results), _layers(results), _growth(results), _native(results)]
    return "\n".join(part for part in parts if part)


def _machine(results: Results) -> str:
    machines = {regime: results["machines"][regime] for regime in REGIMES if regime in results["machines"]}
    first = next(iter(machines.values()))
    rows = [(name, first[name].split(", 2")[0]) for name in ("system", "processor", "mlx", "mlx-lm")]
    rows += [(f"BLAS, {REGIMES[regime]}", machine["BLAS"]) for regime, machine in machines.items()]
    parts: dict[str, list[str]] = {}
    for regime in machines:
        for name, result in results[regime].items():
            parts.setdefault(f"{name.partition('/')[0]}, {REGIMES[regime]}", []).append(result["day"])
    for part, days in parts.items():
        rows.append((f"measured: {part}", " to ".join(sorted({min(days), max(days)}))))
    return table(("machine", ""), rows)


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
                rows.setdefault(name, [name]).append(times(ratio))
    text = (
        "## Families against mlx-lm\n\n"
        "mlx-lm's own class of each family on the same weights, in small sizes (`benchmarks/families.yaml`: 384 wide,\n"
        "4 to 7 layers): a prompt of 128 tokens, and tokens that are decoded one by one, alone and for 8 sequences.\n\n"
        "![Ratios by family](pictures/performance-families.svg)\n\n"
    )
    return text + table(heads, [*rows.values(), means])


def _layers(results: Results) -> str:
    """Single layers and recurrences."""
    rows: dict[tuple[str, ...], list[str]] = {}
    regimes = [regime for regime in REGIMES if part_of(results, regime, "layers")]
    for regime in regimes:
        for name, result in part_of(results, regime, "layers").items():
            for line in result["lines"]:
                if line["kind"] == "memory":
                    continue
                work = line["workload"]
                row = rows.setdefault((name, result["subjects"][1], _what(work)), ["", ""] * len(regimes))
                at = 2 * regimes.index(regime)
                row[at] = _milliseconds(line, 0)
                row[at + 1] = times(line["ratios"][0])
                memory = ratio_of(result, "memory", prompt=work["prompt"], training=work["training"])
                row.append(times(memory)) if len(row) == 2 * len(regimes) else None
    heads = ["here", "against", "tokens"]
    for regime in regimes:
        heads += [f"ms, {REGIMES[regime]}", "ratio"]
    text = (
        "## Recurrences, windows and experts\n\n"
        "One call of a layer or of its recurrence for one sequence. Sizes are those of a model 384 wide; experts are\n"
        "512 to 1024. Where a peer takes minutes, it was measured once, and with one BLAS.\n\n"
    )
    return text + table([*heads, "memory"], [[*key, *row] for key, row in rows.items()])


def _others(results: Results) -> str:
    """transformers on torch."""
    rows = []
    for name, result in part_of(results, "plain", "transformers").items():
        row = [name]
        for line in result["lines"]:
            if line["kind"] != "memory":
                row += [_speed(line, 0), times(line["ratios"][0])]
        rows.append(row)
    if not rows:
        return ""
    text = (
        "## Against transformers on torch\n\n"
        "Tokens a second and ratios, both as installed; torch has a fast BLAS of its own, and CPU kernels that MLX\n"
        "lacks. Training is the loop of mlx_lm's trainer; [training.md](training.md#speed-and-memory) has that of\n"
        "`axon-compose train`.\n\n"
    )
    heads = ["family", "prefill of 512", "ratio", "decode, 1", "ratio", "decode, 8", "ratio", "training, 512", "ratio"]
    return text + table(heads, rows)


def _hybrid(results: Results) -> str:
    """The hybrid of 24 layers."""
    text = (
        "## A hybrid of 24 layers\n\n"
        "Eight layers of state space, eight of windows with experts, eight of state space with experts, 100M\n"
        "parameters; and two hybrids of about its size in other implementations. Tokens a second.\n"
    )
    found = [(title, _hybrid_table(results, regime)) for regime, title in REGIMES.items()]
    shown = [f"\n{title[0].upper()}{title[1:]}:\n\n{rows}" for title, rows in found if rows]
    return text + "".join(shown) if shown else ""


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
        rows.append(row + [times(ratio) for ratio in line["ratios"]])
    peers = found["subjects"][1:]
    return table(["", *found["subjects"], *(f"ratio to {peer}" for peer in peers)], rows)


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
                rows.append([*row, times(line["ratios"][0]), times(memory)])
    text = (
        "## With axon-native\n\n"
        "With OpenBLAS under both sides, and the kernels in C++ of an optional distribution, which `make run`\n"
        "builds ([plugins/axon-native](../plugins/axon-native/README.md)).\n\n"
    )
    figures = [("prefill", 1), ("decode", 1), ("decode", 8)]
    ratios = {
        name: [ratio_of(result, kind, batch=batch) for kind, batch in figures] for name, result in families.items()
    }
    several = [[name, *map(times, found)] for name, found in ratios.items()]
    means = (f"**{_mean(list(found)):.2f}×**" for found in zip(*ratios.values(), strict=True))
    several.append(["geometric mean", *means])
    tables = [
        table(["here", "against", "tokens", "ms", "ratio", "memory"], rows),
        table(["family, against mlx-lm", "prefill of 128", "decode 1", "decode 8"], several) if ratios else "",
        _hybrid_table(results, "native"),
    ]
    return text + "\n".join(filter(None, tables))


def _growth(results: Results) -> str:
    rows = []
    for name, result in part_of(results, "openblas", "growth").items():
        for line in result["lines"]:
            if line["kind"] != "prefill":
                continue
            prompt = line["workload"]["prompt"]
            memory = ratio_of(result, "memory", prompt=prompt)
            rows.append(
                [name, f"{prompt:,}", _speed(line, 0), _speed(line, 1), times(line["ratios"][0]), times(memory)]
            )
    if not rows:
        return ""
    text = (
        "## How cost grows with the prompt\n\n"
        "Tokens a second of prefill, with OpenBLAS: a line that stays level is linear in length.\n\n"
        "![Prefill by length](pictures/performance-growth.svg)\n\n"
    )
    return text + table(["family", "tokens", "axon-compose", "mlx-lm", "ratio", "memory"], rows)


def _what(work: Mapping[str, Any]) -> str:
    return f"{'forward and backward' if work['training'] else 'forward'}, {work['prompt']:,}"


def _speed(line: Mapping[str, Any], at: int) -> str:
    speed = median_of(line, at)
    return "–" if speed is None else f"{speed:,.0f}" if speed >= 100 else f"{speed:,.3g}"


def _milliseconds(line: Mapping[str, Any], at: int) -> str:
    speed = median_of(line, at)
    return "–" if speed is None else f"{1000 * line['workload']['prompt'] * line['workload']['batch'] / speed:,.3g}"


def _mean(ratios: list[float | None]) -> float:
    known = [ratio for ratio in ratios if ratio]
    return exp(sum(map(log, known)) / len(known))


def _figure_name(kind: str, batch: int) -> str:
    return kind if kind == "prefill" else f"decode {batch}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for name, draw in pictures():
        draw(PICTURES / f"{name}.svg")
