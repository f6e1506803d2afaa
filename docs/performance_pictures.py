"""Pictures of the page of performance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from performance_results import REGIMES, Results, lines_of, load_results, median_of, part_of, ratio_of

PICTURES: Final = Path(__file__).resolve().parent / "pictures"


def pictures() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Names, and what draws them."""
    results = load_results()
    yield "performance-families", lambda path: _draw_families(results, path)
    if part_of(results, "openblas", "growth"):
        yield "performance-growth", lambda path: _draw_growth(results, path)


def _draw_families(results: Results, path: Path) -> None:
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        names = sorted(part_of(results, "plain", "families"), reverse=True)
        figure, panels = plt.subplots(1, 3, figsize=(9, 6.6), sharey=True, layout="constrained")
        for axes, (kind, batch) in zip(panels, [("prefill", 1), ("decode", 1), ("decode", 8)], strict=True):
            for regime, marker in (("plain", "o"), ("openblas", "s")):
                part = part_of(results, regime, "families")
                points = [(ratio_of(part[name], kind, batch=batch), name) for name in names if name in part]
                shown = [(ratio, name) for ratio, name in points if ratio]
                axes.plot(*zip(*shown, strict=True), marker, ms=5, label=REGIMES[regime])
            axes.axvline(1, color="#888", lw=1)
            axes.set_xscale("log", base=2)
            axes.set_title("prompt of 128" if kind == "prefill" else f"decode, {batch} at a time")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        _save(figure, path)


def _draw_growth(results: Results, path: Path) -> None:
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
        for number, (name, result) in enumerate(part_of(results, "openblas", "growth").items()):
            for at, style in ((0, "-"), (1, "--")):
                points = [(line["workload"]["prompt"], median_of(line, at)) for line in lines_of(result, "prefill")]
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
