"""The orderings of the page: their descriptions are right, and what is said of each follows from its runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import refresh

from axon_compose import load
from axon_compose.learn.race import RaceResult
from axon_compose.learn.tasks import read_task

sys.path.insert(0, str(refresh.ROOT / "benchmarks"))

import orderings
import orderings_page

COMMON, CLAIMS = orderings.claims()
KNOWN = json.loads(orderings.RESULTS.read_text("utf-8"))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["title"])
def test_a_claim_names_models_that_there_are(claim: dict) -> None:  # type: ignore[type-arg]
    names = {load(model).name for model in orderings.models(COMMON, claim)}
    compared = {name for pair in (*claim.get("expect", ()), *claim.get("alike", ())) for name in pair}
    assert names == set(claim["models"])
    assert compared | {claim.get("least")} - {None} <= names
    assert compared or "least" in claim
    if "task" in claim:
        read_task(claim["task"])


@pytest.mark.parametrize("title", KNOWN)
def test_what_was_run_is_what_is_described(title: str) -> None:
    claim = next(each for each in CLAIMS if each["title"] == title)
    result = RaceResult.from_dict(KNOWN[title])
    assert result.finished
    assert {each.name for each in result.entrants} == set(claim["models"])
    assert result.material == claim.get("task", claim.get("data"))
    assert [len(result.standing(name).scores) for name in claim["models"]] == [claim.get("seeds", 3)] * len(
        claim["models"]
    )


def test_a_claim_that_turns_round_has_not_come_out() -> None:
    """The page says so whatever is hoped for."""
    title = "A window fails beyond its reach, and one full layer mends it"
    claim = next(each for each in CLAIMS if each["title"] == title)
    result = RaceResult.from_dict(KNOWN[title])
    assert orderings_page.came_out(claim, result)[0] == "yes"
    other = {"window": "one-full-layer", "one-full-layer": "window"}
    turned = replace(result, runs=tuple(replace(run, model=other[run.model]) for run in result.runs))
    word, lines = orderings_page.came_out(claim, turned)
    assert word == "no"
    assert lines[0].startswith("window is better than one-full-layer")
