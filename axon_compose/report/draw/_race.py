"""A race as a page, and as one picture: learning curves, and accuracy against what a model keeps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, Final

from axon_compose.machine.units import count, human, operations
from axon_compose.report._cells import escape
from axon_compose.report._race import race_headline, race_notes, race_rows, race_verdicts
from axon_compose.report.draw._chart import CYCLE, Axis, Line, Lines, Point, Points, brief
from axon_compose.report.draw._html import chart, document, models, note, picture_alone, section, sentence
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._palette import Tone

if TYPE_CHECKING:
    from axon_compose.learn.race import RaceResult, Run

__all__ = ["race_curves", "race_page", "race_picture"]

#: What runs to the right of a curve: the field of an evaluation, its name in a title, and the axis.
_ACROSS: Final = {
    "tokens": ("tokens", Axis("tokens of training", brief(count))),
    "flops": ("operations", Axis("FLOPs of training", brief(operations))),
    "seconds": ("time", Axis("seconds in steps of training", lambda number: f"{number:,.4g}")),
}
#: Width and height of one of the two charts of a picture.
_WIDE, _TALL = 430.0, 300.0


def race_page(race: RaceResult) -> str:
    """A page of HTML that holds everything it shows."""
    titles, *rows = race_rows(race)
    return document(
        escape(", ".join(each.name for each in race.entrants)),
        element("h1", text(escape(race.material))),
        note(escape(race_headline(race))),
        models(titles, rows),
        *(note(sentence(line)) for line in race_verdicts(race)),
        element("div", *(section(title, chart(drawn)) for title, drawn in _charts(race)), class_="halves"),
        section("Terms", *(note(sentence(line)) for line in race_notes(race))),
    )


def race_picture(race: RaceResult) -> str:
    """Two charts beside each other as one SVG that needs no page: the curves, and score against caches."""
    curves, kept = race_curves(race, "tokens", named=True), _kept(race)
    drawn = [each for each in (curves, kept) if each is not None]
    parts = [
        element("g", each.svg(_WIDE, _TALL), transform=f"translate({at * (_WIDE + 30):.0f} 0)")
        for at, each in enumerate(drawn)
    ]
    wide = len(drawn) * (_WIDE + 30)
    return picture_alone(escape(race_headline(race)), wide, _TALL, *parts)


def _charts(race: RaceResult) -> Iterator[tuple[str, Lines | Points]]:
    what = "Accuracy" if race.metric == "accuracy" else "Loss"
    for across, (title, _) in _ACROSS.items():
        drawn = race_curves(race, across)
        if drawn is not None:
            yield f"{what} over {title}", drawn
    kept = _kept(race)
    if kept is not None:
        yield f"{what} against caches", kept


def _up(race: RaceResult) -> Axis:
    if race.metric == "accuracy":
        return Axis("held-out accuracy in %", lambda number: f"{number:.0f}", top=100)
    return Axis("held-out " + ("bits a byte" if race.bits else "loss"), lambda number: f"{number:.3g}")


def _height(race: RaceResult, score: float) -> float:
    """A score on the axis of `_up`."""
    return score * (100 if race.metric == "accuracy" else 1)


def _tones(race: RaceResult) -> dict[str, Tone]:
    return dict(zip((each.name for each in race.entrants), cycle(CYCLE), strict=False))


def race_curves(race: RaceResult, across: str, *, named: bool = False) -> Lines | None:
    """A thin line for each run, and one through the medians of those that count, as far as all of them have come."""
    lines: list[Line] = []
    for at, (name, tone) in enumerate(_tones(race).items()):
        runs = [run for run in race.runs if run.model == name and run.points]
        if len(runs) > 1:
            lines += [Line(name, _curve(race, run, across), tone, thin=True) for run in runs]
        counted = [run for run in runs if run.fault is None] or runs
        steps = zip(*(_curve(race, run, across) for run in counted), strict=False)
        middle = [(median(x for x, _ in points), median(y for _, y in points)) for points in steps]
        lines.append(Line(name, middle, tone, dashed=at >= len(CYCLE)))
    if race.chance is not None and any(line.shown() for line in lines):
        ends = [x for line in lines for x, _ in line.shown()]
        level = _height(race, race.chance)
        lines.append(Line("chance", [(min(ends), level), (max(ends), level)], "quiet", dashed=True))
    lines = [line for line in lines if line.shown()]
    title = f"{race.material}: {race.metric} over {across}"
    return Lines(title, _ACROSS[across][1], _up(race), lines, named) if lines else None


def _curve(race: RaceResult, run: Run, across: str) -> list[tuple[float, float]]:
    return [(float(getattr(point, across)), _height(race, race.score(point))) for point in run.points]


def _kept(race: RaceResult) -> Points | None:
    """The median score of each model against the bytes that it keeps: the Pareto picture of the literature."""
    tones = _tones(race)
    found = {each.name: each.median for each in race.standings() if each.median is not None}
    points = [
        Point(each.name, each.state_bytes, _height(race, found[each.name]), tones[each.name])
        for each in race.entrants
        if each.name in found
    ]
    across = Axis(f"bytes of caches after {race.length:,} tokens", brief(human))
    return Points(f"{race.material}: {race.metric} against caches", across, _up(race), points) if points else None
