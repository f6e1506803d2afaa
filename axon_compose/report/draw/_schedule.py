"""A simulated schedule on a page: what each stage of the pipeline does when, as strips, and the layouts as a table."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from axon_compose.analysis.devices import Job, Run, Simulated, SimulationSheet
from axon_compose.report._simulation import seconds_text, simulation_notes, simulation_rows
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._html import DESK, figure, models, note, section, sentence
from axon_compose.report.draw._markup import element, number, text
from axon_compose.report.draw._spent import swatch

__all__ = ["schedule_picture", "simulation_section"]

#: Height of a strip, from one to the next, above the first, and the room for the names of stages.
STRIP: Final = 16.0
ROW: Final = 22.0
TOP: Final = 20.0
NAMES: Final = 58.0
#: Stages that are drawn at most; of more, some at equal distances.
_MOST: Final = 12
#: Jobs that have their number inside have room for it.
_ROOM: Final = 16.0
_COLOURS: Final = {"F": "recurrent-bar", "B": "attention-bar", "D": "recurrent-bar", "d": "mixed-bar"}
_WORDS: Final = {"F": "forward", "B": "backward", "D": "even groups", "d": "odd groups"}


def simulation_section(sheet: SimulationSheet) -> str:
    """The markup of a section: the schedule of the best layout, and all that were simulated."""
    head, *rows = simulation_rows(sheet)
    what = "Training" if sheet.training else "Decoding"
    best = sheet.best
    kinds = dict.fromkeys(_look(done.job) for done in best.timeline.runs)
    legend = "".join(element("li", swatch(_COLOURS[kind]), text(_WORDS[kind])) for kind in kinds)
    return section(
        f"{what} on {sheet.devices:,} devices, simulated",
        figure(lambda width: _strips(best, width), element("ul", legend, class_="names")),
        models(head, rows),
        *(note(sentence(line)) for line in [f"above: {best.name}, time runs to the right", *simulation_notes(sheet)]),
    )


def schedule_picture(row: Simulated) -> str:
    """The strips as a picture by itself."""
    return _strips(row, DESK, style=True) + "\n"


def _strips(row: Simulated, width: float, *, style: bool = False) -> str:
    """A strip for each stage, all in one scale."""
    canvas = Canvas()
    timeline = row.timeline
    scale = (width - NAMES - 1) / timeline.seconds
    step = -(-timeline.stages // _MOST)
    shown = range(0, timeline.stages, step)
    canvas.words(width, 12, seconds_text(timeline.seconds), "small quiet end")
    for place, stage in enumerate(shown):
        top = TOP + place * ROW
        canvas.words(0, top + 12, f"stage {stage + 1}", "small quiet")
        canvas.rect(NAMES, top, width - NAMES, STRIP, "track")
        _strip(canvas, timeline.of(stage), top, scale)
    label = f"What the stages of {row.name} do when"
    return canvas.svg(width, TOP + len(shown) * ROW, label, style=style)


def _strip(canvas: Canvas, runs: list[Run], top: float, scale: float) -> None:
    """The jobs of a stage: one path for all of a kind, and numbers where there is room."""
    boxes: defaultdict[str, list[str]] = defaultdict(list)
    for done in runs:
        x, wide = NAMES + done.start * scale, (done.end - done.start) * scale
        gap = min(1.0, wide / 4)
        boxes[_look(done.job)].append(
            f"M{number(x)} {number(top)}h{number(max(wide - gap, 0.1))}v16h-{number(max(wide - gap, 0.1))}z"
        )
    for kind, commands in boxes.items():
        canvas.path("".join(commands), _COLOURS[kind])
    for done in runs:
        wide = (done.end - done.start) * scale
        if wide >= _ROOM:
            canvas.words(NAMES + done.start * scale + wide / 2, top + 12, str(done.job.micro + 1), "small middle")


def _look(job: Job) -> str:
    """How a job is coloured: groups of sequences that are decoded take turns."""
    return "d" if job.kind == "D" and job.micro % 2 else job.kind
