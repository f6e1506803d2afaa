"""The tables of docs/devices.md are what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import processes

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def test_the_page_shows_what_was_measured() -> None:
    results, page = json.loads(processes.RESULTS.read_text()), PAGE.read_text("utf-8")
    assert processes.memory_table(results) in page
    assert "models" not in results or processes.table(results) in page


def test_no_process_holds_more_than_its_share_and_15_percent_while_it_loads() -> None:
    held = json.loads(processes.RESULTS.read_text())["held"]
    for ways in held.values():
        (whole,) = ways["1 process"]
        for ranks in ways.values():
            assert all(said["peak"] <= 1.15 * said["share"] for said in ranks)
            assert all(said["resident"] <= said["share"] + max(2e6, 0.15 * said["share"]) for said in ranks)
            assert all(said["share"] < 0.7 * whole["share"] for said in ranks) or len(ranks) == 1
