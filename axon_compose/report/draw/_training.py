"""A page about a run of training: what was learned over tokens, work and time, and how the steps went."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import exp, log
from typing import Any, Final

from axon_compose.machine.units import count, operations
from axon_compose.report._cells import escape
from axon_compose.report.draw._chart import CYCLE, Axis, Line, Lines, brief
from axon_compose.report.draw._html import chart, document, note, section
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._palette import style_sheet, variables

__all__ = ["training_page", "training_picture"]

Record = Mapping[str, Any]

#: Points of a line at most: each is the mean of the steps between two of them.
_POINTS: Final = 120
#: What a record of a step holds beside figures of an objective.
_KNOWN: Final = {"kind", "step", "loss", "learning_rate", "gradient_norm", "tokens", "seconds", "flops"}
_COUNT: Final = brief(count)
#: What runs to the right: its name in a record, in a title, and on the axis.
_ACROSS: Final = {
    "tokens": ("tokens", Axis("tokens", _COUNT)),
    "flops": ("operations", Axis("FLOPs of forward and backward passes", brief(operations))),
    "seconds": ("time", Axis("seconds in steps", lambda number: f"{number:,.6g}")),
}


def training_page(name: str, lines: Sequence[Record]) -> str:
    """A page of HTML that holds everything it shows.

    Args:
        name: Of the model.
        lines: The record of a run, as `metrics.jsonl` has it.
    """
    steps, evaluations, samples = (
        [line for line in lines if line["kind"] == kind] for kind in ("step", "evaluation", "sample")
    )
    columns = element("div", *_charts(steps, evaluations), class_="halves")
    return document(name, *_lead(name, steps, evaluations), columns, *_samples(samples))


def training_picture(lines: Sequence[Record], width: float = 720.0, height: float = 320.0) -> str:
    """An SVG by itself: the loss over tokens, in training and held out; dark where the reader prefers that.

    Args:
        lines: The record of a run, with at least two steps.
        width: In pixels.
        height: In pixels.
    """
    steps, evaluations = ([line for line in lines if line["kind"] == kind] for kind in ("step", "evaluation"))
    shown = _drawn(_losses(steps, evaluations, "tokens"))
    drawn = Lines("Loss over tokens", _ACROSS["tokens"][1], Axis("loss in nats", _plainly), shown).svg(width, height)
    style = element("style", variables() + style_sheet())
    ground = element("rect", width=width, height=height, fill="var(--paper)")
    names = (
        element("text", text(line.label), x=width - 12, y=20 + 18 * at, class_="name end",
                style=f"fill: var(--{line.tone})")
        for at, line in enumerate(shown)
    )  # fmt: skip
    opened, rest = drawn.split(">", 1)
    return f"{opened}>{style}{ground}{rest.removesuffix('</svg>')}{''.join(names)}</svg>\n"


def _drawn(lines: Iterable[Line]) -> list[Line]:
    """Those that are more than a point."""
    return [line for line in lines if len({x for x, _ in line.shown()}) > 1]


def _losses(steps: Sequence[Record], evaluations: Sequence[Record], key: str) -> list[Line]:
    """In training and held out, over one of `_ACROSS`."""
    return [
        Line("training", list(_means(steps, key, "loss")), "recurrent"),
        Line("held out", [(line[key], line["loss"]) for line in evaluations], "attention"),
    ]


def _lead(name: str, steps: Sequence[Record], evaluations: Sequence[Record]) -> Iterator[str]:
    yield element("h1", text(escape(name)))
    if not steps:
        yield note("No step has been made.")
        return
    last, shown = steps[-1], []
    if evaluations:
        shown.append(("Held-out loss", f"{evaluations[-1]['loss']:.3f}"))
        if "bits_per_byte" in evaluations[-1]:
            shown.append(("Bits per byte", f"{evaluations[-1]['bits_per_byte']:.3f}"))
        if "accuracy" in evaluations[-1]:
            shown.append(("Accuracy", f"{evaluations[-1]['accuracy']:.1%}"))
    seconds = max(last["seconds"], 1e-9)
    shown += [
        ("Steps", f"{last['step'] + 1:,}"),
        ("Tokens", count(last["tokens"])),
        ("Time in steps", f"{seconds:,.0f} s"),
        ("Tokens per second", f"{last['tokens'] / seconds:,.0f}"),
    ]
    if last["flops"]:
        shown.append(("FLOPs", operations(last["flops"])))
    tiles = [element("div", element("dt", text(label)), element("dd", text(value))) for label, value in shown]
    yield element("dl", *tiles, class_="totals")


def _charts(steps: Sequence[Record], evaluations: Sequence[Record]) -> Iterator[str]:
    for key, (what, across) in _ACROSS.items():
        yield from _section(
            f"Loss over {what}", across, Axis("loss in nats", _plainly), _losses(steps, evaluations, key)
        )
    tokens = _ACROSS["tokens"][1]
    for key, label in (("learning_rate", "Learning rate"), ("gradient_norm", "Norm of the gradient")):
        lines = [Line(label, list(_means(steps, "tokens", key)), "head")]
        yield from _section(label, tokens, Axis(label.lower(), _plainly), lines)
    more = dict.fromkeys(key for line in steps for key in line if key not in _KNOWN)
    for group, keys in _groups(more).items():
        lines = [
            Line(key, list(_means(steps, "tokens", key)), CYCLE[at % len(CYCLE)], at >= len(CYCLE))
            for at, key in enumerate(keys)
        ]
        title = group.replace("_", " ").capitalize()
        yield from _section(title, tokens, Axis(title.lower(), _plainly), lines)


def _section(title: str, across: Axis, up: Axis, lines: Iterable[Line]) -> Iterator[str]:
    """A chart of the lines that have something to show."""
    shown = _drawn(lines)
    if shown:
        yield section(title, chart(Lines(title, across, up, shown)))


def _groups(keys: Iterable[str]) -> dict[str, list[str]]:
    """Figures that belong in one chart: those of the same name up to a dot, or but for the number at its end."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(key.partition(".")[0].rstrip("0123456789_"), []).append(key)
    return found


def _means(steps: Sequence[Record], across: str, key: str) -> Iterator[tuple[float, float]]:
    """Means over steps, at distances that are equal as factors."""
    points = [(line[across], line[key]) for line in steps if line.get(key) is not None and line[across] > 0]
    if not points:
        return
    first, last = points[0][0], points[-1][0]
    place = _place(first, last)
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        bins.setdefault(int(place(x) * (_POINTS - 1)), []).append((x, y))
    for inside in bins.values():
        yield exp(sum(log(x) for x, _ in inside) / len(inside)), sum(y for _, y in inside) / len(inside)


def _place(first: float, last: float) -> Callable[[float], float]:
    return lambda x: log(x / first) / log(last / first) if last > first else 0.0


def _plainly(number: float) -> str:
    return f"{number:.3g}"


def _samples(samples: Sequence[Record]) -> Iterator[str]:
    if not samples:
        return
    found = [
        element("h3", text(f"After {line['step']:,} steps"))
        + element("pre", text("\n".join(map(escape, line["text"].split("\n")))))
        for line in samples
    ]
    yield section("What it writes", *found)
