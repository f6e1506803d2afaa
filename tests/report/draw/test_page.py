"""The page: its tables add up to the cost sheet, its curves are those of the sheet, its options reach it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

import axon_compose
from axon_compose.analysis.cost import cost
from axon_compose.cli import main
from axon_compose.plan import Plan, cache_nbytes, total_parameters
from axon_compose.registry import Registry
from axon_compose.report.draw import page
from axon_compose.report.draw._curves import decode_chart, grid, memory_chart, prefill_chart, traffic_chart
from axon_compose.report.draw._spent import spent
from axon_compose.report.draw._sums import cache_bytes, parts
from tests.helpers import described
from tests.shipped import VARIED, shipped

ROOT = Path(__file__).resolve().parents[3]
SHOWN = ("bit-axon", "gemma3_text", "nemotron_h", "deepseek_v3")


def plan_of(name: str) -> Plan:
    return shipped(name).plan()


def parsed(markup: str) -> ET.Element:
    """Markup as a tree; what stands for nothing in HTML is none in XML."""
    return ET.fromstring(re.sub(r"<(meta[^>]*)>", r"<\1/>", markup.removeprefix("<!doctype html>")))


def section(root: ET.Element, title: str) -> ET.Element:
    return next(found for found in root.iter("section") if found[0].text == title)


def rows(root: ET.Element, part: str) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for body in root.iter(part) for row in body]


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.mark.parametrize("name", VARIED)
def test_where_the_memory_goes_adds_up(name: str) -> None:
    plan = plan_of(name)
    sheet = cost(plan, context=(100, 4096, 65536), quantize=4, batch=3)
    root = ET.fromstring(f"<div>{''.join(spent(plan, sheet))}</div>")
    columns = list(zip(*(map(number, row[1:]) for row in rows(root, "tbody")), strict=True))
    totals = [number(cell) for cell in rows(root, "tfoot")[0][1:]]
    assert [sum(column) for column in columns] == totals
    assert totals == [sheet.weight_bytes + 3 * cache_nbytes(plan, at.tokens) for at in sheet.contexts]


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    plan = plan_of("gemma3_text")
    sheet = cost(plan)
    root = ET.fromstring(f"<div>{''.join(spent(plan, sheet))}</div>")
    picture = next(found for found in root.iter() if found.get("width") == "560" and found.tag.endswith("svg"))
    lengths: dict[str, float] = {}
    for rect in picture.iter("{http://www.w3.org/2000/svg}rect"):
        if rect.get("class") != "paper":
            lengths[rect.get("y", "")] = lengths.get(rect.get("y", ""), 0) + float(rect.get("width", 0))
    most = max(at.memory_bytes for at in sheet.contexts)
    expected = [559 * at.memory_bytes / most for at in sheet.contexts]
    assert list(lengths.values()) == pytest.approx(expected, abs=0.5)  # coordinates have one decimal


@pytest.mark.parametrize("name", VARIED)
def test_parts_and_caches_of_a_page_are_all_there_are(name: str) -> None:
    plan = plan_of(name)
    sheet = cost(plan, context=(1, 100, 65536))
    assert sum(part.parameters for _, part in parts(plan, sheet)) == total_parameters(plan)
    for at in sheet.contexts:
        assert sum(cache_bytes(at).values()) == cache_nbytes(plan, at.tokens)


@pytest.mark.parametrize("name", SHOWN)
def test_curves_are_those_of_the_sheet(name: str) -> None:
    plan = plan_of(name)
    at = grid(plan, (4096, 65536))
    assert {256, 4096, 65536, 262144} <= set(at)
    sheet = cost(plan, context=at, batch=2, memory=10**10)
    for chart, total in (
        (memory_chart(sheet), lambda each: each.memory_bytes),
        (traffic_chart(sheet), lambda each: each.moved_bytes),
        (decode_chart(plan, sheet), lambda each: each.decode_flops),
        (prefill_chart(plan, sheet), lambda each: each.prefill_flops / 2),
    ):
        (whole,) = (line for line in chart.lines if line.tone == "ink")
        assert list(whole.points) == [(each.tokens, total(each)) for each in sheet.contexts]
        if chart.title.split(": ")[1].startswith("operations"):
            parts_ = [line.points for line in chart.lines if line.tone != "ink"]
            assert [sum(y for _, y in points) for points in zip(*parts_, strict=True)] == [y for _, y in whole.points]
    (bound,) = (line for line in memory_chart(sheet).lines if line.label == "memory of 10 GB")
    assert {y for _, y in bound.points} == {10**10}


def test_curves_reach_as_far_as_the_tables_and_bend_where_a_window_is_full() -> None:
    plan = axon_compose.load("hybrid-demo", settings=["components.swa.window_size=100000"]).plan()
    assert 100_000 in grid(plan, (4096,))
    assert grid(plan, (3, 2**20))[0] == 2
    assert grid(plan, (3, 2**20))[-1] == 2**20


def test_unknown_work_is_told_and_never_drawn_as_nothing() -> None:
    mlp = replace(Registry.installed().component("mlp"), default=False, flops=None)
    data = described()
    data["components"]["mlp"]["type"] = "acme/mlp"
    plan = axon_compose.load(data, registry=Registry.with_plugins({"acme": [mlp]})).plan()
    written = page(plan, context=[4096])
    root = parsed(written)
    for title in ("Decoding: operations of one token", "Prefill: operations of a whole prompt"):
        words = "".join(section(root, title).itertext())
        assert "at least" in words
        assert "all together" not in words
        assert "acme/mlp declares no `flops`: it is left out." in words
        assert "feed-forward" not in words


def test_options_reach_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--context", "1000", "--quantize", "4", "--memory", "100MB", "--bandwidth", "50", "--batch", "2"]
    assert main(["draw", "llama-small", "-o", "a.html", *options]) == 0
    sheet = axon_compose.load("llama-small").cost(context=1000, quantize=4, memory=10**8, bandwidth=50e9, batch=2)
    root = parsed((tmp_path / "a.html").read_text("utf-8"))
    tiles = {tile[0].text: tile[1].text for tile in root.iter("div") if len(tile) == 2 and tile[0].tag == "dt"}
    assert sheet.fit
    assert tiles["Longest context in 100 MB"] == f"{sheet.fit.longest:,} tokens"
    assert "Weights, 4 bits" in tiles
    (speeds,) = rows(section(root, "Decoding: bytes moved"), "tbody")
    assert speeds[0] == "1,000"
    assert float(speeds[2].replace(",", "")) == pytest.approx(
        sheet.contexts[0].tokens_per_second, rel=0.005
    )  # three digits
    assert [cell for row in rows(section(root, "Decoding: bytes moved"), "thead") for cell in row][2] == "at 50 GB/s"


def test_a_picture_refuses_options_of_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["draw", "llama-small", "-o", "a.svg", "--memory", "1GB"]) == 2
    assert "a picture shows nothing of --memory" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_same_page_twice() -> None:
    plan = plan_of("hybrid-demo")
    assert page(plan) == page(plan)
