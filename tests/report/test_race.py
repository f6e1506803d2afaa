"""What is printed of a race: scores, verdicts in words, and every term that a reader needs."""

from __future__ import annotations

import re
from dataclasses import replace

from axon_compose.learn.budget import Budget
from axon_compose.learn.race import Entrant, Point, RaceResult, Run, Settings
from axon_compose.report._race import race_html, race_text
from axon_compose.report.display import html_of, text_of
from axon_compose.report.draw._race import race_curves

SCORES = {"window": (0.41, 0.43, 0.4), "hybrid": (0.97, 0.99, 0.98), "full": (0.98, 0.99, 1.0)}
ENTRANTS = (
    Entrant("window", "w", 21_376, 44_160, 1152),
    Entrant("hybrid", "h", 21_500, 45_000, 2500, {"hidden_size": 30}, 0.0058),
    Entrant("full", "f", 24_000, 46_000, 3840, {}, 0.1228),
)
RACE = RaceResult(
    material="needle:distance=24",
    chance=1 / 16,
    scored=2048,
    length=35,
    settings=Settings(Budget("steps", 300), match="params"),
    entrants=ENTRANTS,
    runs=tuple(
        Run(name, seed, 1e-3 if name == "window" else 3e-3, (Point(300, 10_000, 5.0, 10**9, 1.0, score),), done=True)
        for name, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ),
)

TEXT = """\
needle:distance=24: accuracy of 3 models after 300 steps, 3 seeds

  model   accuracy  lowest and highest   rate  parameters  FLOPs/token   caches  tokens/s
  full       99.0%     98.0% to 100.0%  0.003       24.0K       46.0 k  3.84 kB     2,000
  hybrid     98.0%      97.0% to 99.0%  0.003       21.5K       45.0 k  2.50 kB     2,000
  window     41.0%      40.0% to 43.0%  0.001       21.4K       44.2 k  1.15 kB     2,000

  no difference can be told between full and hybrid: 1.0 points; the interval from -3.3 points to 5.3 points includes 0
  full is higher than window by 57.7 points, from 47.5 points to 67.8 points

  accuracy over 2,048 held-out targets; a blind answer gets 6.2%
  batches of 32 sequences of 35 tokens, the same in the same order for all; one step of each at a time
  learning rates 0.001, 0.003, 0.01 were tried by all, each with a run of its own; the lowest loss decided
  at the end of that grid, where a better one may lie beyond: window
  intervals: of the mean over paired seeds, by Student's t, right in 95 % of races
  caches: after one sequence, in bfloat16; tokens/s of training, while other runs take their turns
  parameters of hybrid as window: within 1 % (hidden_size 30)
  parameters of full as window: +12.3%, as near as its widths come (as it is)
"""


def test_the_text_of_a_race() -> None:
    assert race_text(RACE) == TEXT
    assert text_of(RACE) == TEXT.rstrip()
    assert str(RACE) == TEXT.rstrip()


def test_a_notebook_shows_the_same() -> None:
    shown = race_html(RACE)
    assert html_of(RACE) == shown
    assert shown.count("<tr>") == 4
    assert "no difference can be told between full and hybrid" in shown


def test_losses_are_bits_a_byte_and_lower_is_better() -> None:
    runs = tuple(
        replace(run, points=(replace(run.points[-1], loss=1.0 + run.points[-1].accuracy),)) for run in RACE.runs
    )
    text = race_text(replace(RACE, chance=None, bits=1.5, runs=runs, settings=replace(RACE.settings, rates=(1e-3,))))
    assert "bits a byte of 3 models" in text
    assert "window is lower than" in text
    assert re.search(r"window +2.115 +2.100 to 2.145", text)


def test_a_run_that_ended_early_has_a_line_and_no_say() -> None:
    """Neither in the table nor in the line of medians, which it would end where it did."""
    points = tuple(Point(step, 100 * step, 1.0, 10**6, 1.0, step / 1000) for step in (100, 200, 300))
    early = Run("full", 2, 3e-3, points[:1], fault="the loss is nan in step 150")
    runs = (Run("full", 0, 3e-3, points, done=True), Run("full", 1, 3e-3, points, done=True), early)
    race = replace(RACE, entrants=ENTRANTS[2:], runs=runs)
    assert re.search(r"full +30\.0% +30\.0% to 30\.0%", race_text(race))
    assert "full, seed 2, rate 0.003 ended early and does not count: the loss is nan in step 150" in race_text(race)
    curves = race_curves(race, "tokens")
    assert curves is not None
    assert sorted((len(line.points), line.thin) for line in curves.lines if line.label == "full") == [
        (1, True),
        (3, False),
        (3, True),
        (3, True),
    ]
    assert race_text(replace(race, runs=(early,))).splitlines()[3].split()[:3] == ["full", "-", "-"]
