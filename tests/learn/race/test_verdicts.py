"""Which differences of scores are significant in a race, and that a result survives JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from learn.race.small_race import raced

from axon_compose.learn.race import Point, RaceResult, Run, Settings


@pytest.fixture(scope="module")
def whole() -> RaceResult:
    """A race of two models, as short as it can be."""
    return raced(budget="1steps")


def judged(result: RaceResult, *accuracies: tuple[float, ...]) -> RaceResult:
    """The race with other accuracies at the end, one tuple for each model."""
    runs = tuple(
        Run(entrant.name, seed, 1e-2, (Point(4, 4, 1.0, 4, 1.0, value),), done=True)
        for entrant, values in zip(result.entrants, accuracies, strict=True)
        for seed, value in enumerate(values)
    )
    return replace(result, runs=runs, scored=10_000, settings=replace(result.settings, seeds=len(accuracies[0])))


def test_a_clear_difference_is_significant(whole: RaceResult) -> None:
    (verdict,) = judged(whole, (0.3, 0.31, 0.29), (0.9, 0.92, 0.91)).verdicts()
    assert (verdict.ahead, verdict.behind, verdict.significant) == ("state", "attention", True)
    assert verdict.low < verdict.mean < verdict.high
    assert verdict.mean == pytest.approx(0.61)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0.5, 0.9, 0.4), (0.6, 0.5, 0.7)),  # the spread is larger than the difference
        ((0.9,), (0.1,)),  # one seed has no spread
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((0.5, 0.5, 0.5), (0.504, 0.504, 0.504)),  # less than ten thousand answers can tell
    ],
)
def test_no_difference_is_significant_where_there_is_none(whole: RaceResult, first: Any, second: Any) -> None:
    (verdict,) = judged(whole, first, second).verdicts()
    assert not verdict.significant


def test_the_mean_decides_who_is_ahead(whole: RaceResult) -> None:
    """Not the median, by which models are listed."""
    found = judged(whole, (0.5, 0.5, 0.0), (0.49, 0.49, 0.49))
    assert found.standings()[0].name == "attention"
    (verdict,) = found.verdicts()
    assert verdict.ahead == "state"
    assert verdict.mean > 0


def test_settings_survive_json(whole: RaceResult) -> None:
    assert Settings.from_dict(json.loads(json.dumps(whole.settings.to_dict()))) == whole.settings


def test_a_result_survives_json(whole: RaceResult) -> None:
    text = json.dumps(whole.to_dict(), allow_nan=False)
    assert RaceResult.from_dict(json.loads(text)) == whole
