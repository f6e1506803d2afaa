"""The page of performance: what `benchmarks/everything.py` has measured, as tables and pictures.

python docs/performance_page.py    # write docs/performance.md and its pictures from benchmarks/results.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from math import exp, log
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
PICTURES: Final = ROOT / "docs" / "pictures"
RESULTS: Final = ROOT / "benchmarks" / "results.json"
REGIMES: Final = {"stock": "the wheel's BLAS", "openblas": "OpenBLAS"}

_INTRODUCTION: Final = """\
# Performance

<!-- Written by `python docs/performance_page.py` from benchmarks/results.json; do not edit. -->

Speed and memory against other implementations on one machine: ratios travel between machines, absolute figures do not.
Above 1, axon-compose is faster or takes less memory. `make bench` measures all of it again, and
[`axon-compose bench`](cli.md#bench) a file of your own.

* Both sides run the same numbers: whole families have the same weights, recurrences the same inputs. Single layers
  have random weights of their own.
* Each side has a process of its own. Rounds are interleaved (A B A B), so that whatever else the machine does slows
  both alike; figures are medians of three, behind a round that nobody counts.
* Everything is in float32 on the CPU. Nothing here was run on Metal or CUDA.
* MLX's wheel for Linux multiplies with the reference BLAS; what a fast one does is told beside it. [`axon-compose
  doctor`](cli.md#doctor) says which one a machine has, and what to install: `mlx_lm` gains as much.
"""


def page() -> str:
    """The whole page."""
    results = json.loads(RESULTS.read_text())
    parts = [_INTRODUCTION, _machine(results), _families(results), _layers(results)]
    parts += [_others(results), _hybrid(results), _growth(results)]
    return "\n".join(part for part in parts if part)


def _machine(results: Mapping[str, Any]) -> str:
    machines = {regime: results["machines"][regime] for regime in REGIMES if regime in results["machines"]}
    first = next(iter(machines.values()))
    rows = [(name, first[name].split(", 2")[0]) for name in ("system", "processor", "mlx", "mlx-lm")]
    rows += [(REGIMES[regime], machine["BLAS"]) for regime, machine in machines.items()]
    return _table(("machine", ""), rows)


def _families(results: Mapping[str, Any]) -> str:
    """Every family that mlx-lm has, on its weights."""
    figures = [("prefill", 1), ("decode", 1), ("decode", 8)]
    heads, means, rows = ["family"], ["geometric mean"], {}
    for regime, title in REGIMES.items():
        for kind, batch in figures:
            found = {
                name: _ratio(result, kind, batch=batch) for name, result in _part(results, regime, "families").items()
            }
            if not found:
                continue
            heads.append(f"{_figure_name(kind, batch)}, {title}")
            means.append(f"**{_mean(list(found.values())):.2f}×**")
            for name, ratio in found.items():
                rows.setdefault(name, [name]).append(_times(ratio))
    told = (
        "## Families against mlx-lm\n\n"
        "mlx-lm's own class of each family on the same weights, in small sizes (`benchmarks/families.yaml`: 384 wide,\n"
        "4 to 7 layers): a prompt of 128 tokens, and tokens that are decoded one by one, alone and for 8 sequences.\n\n"
        "![Ratios by family](pictures/performance-families.svg)\n\n"
    )
    return told + _table(heads, [*rows.values(), means])


def _layers(results: Mapping[str, Any]) -> str:
    """Single layers and recurrences."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for regime in REGIMES:
        for name, result in _part(results, regime, "layers").items():
            for line in result["lines"]:
                if line["kind"] == "memory":
                    continue
                work = line["workload"]
                what = f"{'forward and backward' if work['training'] else 'forward'}, {work['prompt']:,}"
                row = rows.setdefault((name, result["subjects"][1], what), ["", "", "", ""])
                at = 2 * list(REGIMES).index(regime)
                row[at] = _milliseconds(line, 0)
                row[at + 1] = _times(line["ratios"][0])
                memory = _ratio(result, "memory", prompt=work["prompt"], training=work["training"])
                row.append(_times(memory)) if len(row) == 4 else None
    heads = ["here", "against", "tokens"]
    for title in REGIMES.values():
        heads += [f"ms, {title}", "ratio"]
    told = (
        "## Recurrences, windows and experts\n\n"
        "One call of a layer or of its recurrence for one sequence. Sizes are those of a model 384 wide; experts are\n"
        "512 to 1024. Where a peer takes minutes, it was measured once, and with one BLAS.\n\n"
    )
    return told + _table([*heads, "memory"], [[*key, *row] for key, row in rows.items()])


def _others(results: Mapping[str, Any]) -> str:
    """transformers on torch."""
    rows = []
    for name, result in _part(results, "openblas", "transformers").items():
        row = [name]
        for line in result["lines"]:
            if line["kind"] != "memory":
                row += [_speed(line, 0), _times(line["ratios"][0])]
        rows.append(row)
    if not rows:
        return ""
    told = (
        "## Against transformers on torch\n\n"
        "Tokens a second and ratios, with OpenBLAS under MLX; torch brings a BLAS of its own, and kernels for the CPU\n"
        "that MLX does not have.\n\n"
    )
    heads = ["family", "prefill of 512", "ratio", "decode, 1", "ratio", "decode, 8", "ratio", "training, 512", "ratio"]
    return told + _table(heads, rows)


def _hybrid(results: Mapping[str, Any]) -> str:
    """The hybrid of 24 layers."""
    found = _part(results, "openblas", "hybrid").get("bit-axon")
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
    told = (
        "## A hybrid of 24 layers\n\n"
        "Eight layers of state space, eight of windows with experts, eight of state space with experts, 100M\n"
        "parameters; and two hybrids of about its size in other implementations. Tokens a second, with OpenBLAS. A\n"
        "machine of this kind could do 1,430 tokens a second of prefill at most, and 139 of decoding.\n\n"
    )
    peers = found["subjects"][1:]
    return told + _table(["", *found["subjects"], *(f"ratio to {peer}" for peer in peers)], rows)


def _growth(results: Mapping[str, Any]) -> str:
    rows = []
    for name, result in _part(results, "openblas", "growth").items():
        for line in result["lines"]:
            if line["kind"] != "prefill":
                continue
            prompt = line["workload"]["prompt"]
            memory = _ratio(result, "memory", prompt=prompt)
            rows.append(
                [name, f"{prompt:,}", _speed(line, 0), _speed(line, 1), _times(line["ratios"][0]), _times(memory)]
            )
    if not rows:
        return ""
    told = (
        "## How cost grows with the prompt\n\n"
        "Tokens a second of prefill, with OpenBLAS: a line that stays level is linear in length.\n\n"
        "![Prefill by length](pictures/performance-growth.svg)\n\n"
    )
    return told + _table(["family", "tokens", "axon-compose", "mlx-lm", "ratio", "memory"], rows)


def _part(results: Mapping[str, Any], regime: str, part: str) -> dict[str, Any]:
    """Results of a part by their names, in the order in which they are measured."""
    every = results.get(regime, {}).items()
    return {name.partition("/")[2]: result for name, result in every if name.startswith(f"{part}/")}


def _lines(result: Mapping[str, Any], kind: str, **work: Any) -> Iterator[Mapping[str, Any]]:
    for line in result["lines"]:
        if line["kind"] == kind and all(line["workload"][name] == value for name, value in work.items()):
            yield line


def _ratio(result: Mapping[str, Any], kind: str, **work: Any) -> float | None:
    found = next(_lines(result, kind, **work), None)
    return None if found is None else found["ratios"][0]


def _median(line: Mapping[str, Any], at: int) -> float | None:
    measured = line["measurements"][at].get(f"{line['kind']}_tokens_per_second")
    return None if measured is None else float(measured["median"])


def _speed(line: Mapping[str, Any], at: int) -> str:
    speed = _median(line, at)
    return "–" if speed is None else f"{speed:,.0f}" if speed >= 100 else f"{speed:,.3g}"


def _milliseconds(line: Mapping[str, Any], at: int) -> str:
    speed = _median(line, at)
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


def pictures() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Names, and what draws them."""
    results = json.loads(RESULTS.read_text())
    yield "performance-families", lambda path: _draw_families(results, path)
    if _part(results, "openblas", "growth"):
        yield "performance-growth", lambda path: _draw_growth(results, path)


def _draw_families(results: Mapping[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        names = sorted(_part(results, "stock", "families"), reverse=True)
        figure, panels = plt.subplots(1, 3, figsize=(9, 6.6), sharey=True, layout="constrained")
        for axes, (kind, batch) in zip(panels, [("prefill", 1), ("decode", 1), ("decode", 8)], strict=True):
            for regime, marker in (("stock", "o"), ("openblas", "s")):
                part = _part(results, regime, "families")
                points = [(_ratio(part[name], kind, batch=batch), name) for name in names if name in part]
                shown = [(ratio, name) for ratio, name in points if ratio]
                axes.plot(*zip(*shown, strict=True), marker, ms=5, label=REGIMES[regime])
            axes.axvline(1, color="#888", lw=1)
            axes.set_xscale("log", base=2)
            axes.set_title("prompt of 128" if kind == "prefill" else f"decode, {batch} at a time")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        _save(figure, path)


def _draw_growth(results: Mapping[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
        for number, (name, result) in enumerate(_part(results, "openblas", "growth").items()):
            for at, style in ((0, "-"), (1, "--")):
                points = [(line["workload"]["prompt"], _median(line, at)) for line in _lines(result, "prefill")]
                shown = [point for point in points if point[1]]
                axes.plot(
                    *zip(*shown, strict=True), style, marker="o", ms=4, color=_TONES[number],
                    label=f"{name}, {result['subjects'][at]}",
                )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("tokens of the prompt")
        axes.set_ylabel("tokens a second")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.legend(fontsize=8)
        _save(figure, path)


_TONES: Final = ("#2a7fb8", "#c2571a")
#: Grey that reads on white and on black.
_STYLE: Final = {
    "axes.edgecolor": "#888",
    "axes.grid": True,
    "axes.labelcolor": "#888",
    "axes.prop_cycle": __import__("cycler").cycler(color=_TONES),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "grid.alpha": 0.3,
    "legend.framealpha": 0.0,
    "legend.labelcolor": "#888",
    "savefig.facecolor": "none",
    "svg.hashsalt": "axon-compose",
    "text.color": "#888",
    "xtick.color": "#888",
    "ytick.color": "#888",
}


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for name, draw in pictures():
        draw(PICTURES / f"{name}.svg")
