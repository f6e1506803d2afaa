"""The page of a comparison: it holds all it shows, names are text, and charts appear for what is known."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from axon_compose import compare
from axon_compose.analysis.comparison import Comparison
from axon_compose.proof.bench import Measurement, Spread, Workload
from axon_compose.report.draw import comparison_page
from tests.helpers import described

MODELS = ("bit-axon", "jamba", "falcon_mamba")
NO_CACHE = described(name="no-cache", stack="m", blocks={"m": ["mlp"]})


def made(models: Any = MODELS, **options: Any) -> Comparison:
    return compare(models, **{"context": [4096, 65536]} | options)


def measured(comparison: Comparison) -> Comparison:
    speeds = (Measurement("", Spread((100.0,)), Spread((10.0 + at,)), 10**9 + at, 10**9, "cpu") for at in range(9))
    rows = (replace(row, measured=speed) for row, speed in zip(comparison.rows, speeds, strict=False))
    return replace(comparison, rows=tuple(rows), workload=Workload())


def headings(page: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page)


@pytest.fixture(scope="module")
def page() -> str:
    return comparison_page(made(memory=16 * 10**9))


def test_every_figure_is_in_the_table(page: str) -> None:
    comparison = made(memory=16 * 10**9)
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", page)]
    assert cells == [column.text(row) for row in comparison.rows for column in comparison.columns]
    assert page.count("data-label=") == len(cells) - len(MODELS), "on a phone each figure says what it is"


def test_it_needs_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r"https?://(?!www\.w3\.org)|<link|<script|@import|url\((?!#)", page)


def test_elements_are_closed_and_ids_unique(page: str) -> None:
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(page)
    assert not opened
    ids = re.findall(r'\bid="(.*?)"', page)
    assert len(ids) == len(set(ids))


def test_charts_are_those_of_what_is_known(page: str) -> None:
    plain = ["Work and memory", "Parameters and cache", "Cache over context"]
    assert headings(page) == ["Memory over context", *plain]
    assert headings(comparison_page(made())) == plain
    assert headings(comparison_page(made(bandwidth=1e11)))[2] == "Memory and bound on speed"
    assert headings(comparison_page(measured(made())))[2] == "Memory and speed"


def test_what_has_no_place_in_a_chart_is_left_out() -> None:
    found = made([NO_CACHE])
    assert headings(comparison_page(found)) == ["Work and memory", "Parameters and cache"]
    row = found.rows[0]
    unknown = replace(row.sheet, unknown={"a/b": "is silent"}, contexts=tuple(
        replace(cost, decode_flops=0, prefill_flops=0) for cost in row.sheet.contexts
    ))  # fmt: skip
    drawn = comparison_page(replace(found, rows=(replace(row, sheet=unknown),)))
    assert headings(drawn) == ["Parameters and cache"]
    assert "Unknown: `a/b` is silent" in drawn
    mixed = comparison_page(replace(found, rows=(replace(row, name="silent", sheet=unknown), row)))
    assert "FLOPs of a decoded token, at least" in mixed


def test_names_are_text() -> None:
    evil = "<script>alert(1)</script>\x1b"
    drawn = comparison_page(made(["hybrid-demo", "llama-small"], names=[evil, "b"], memory=10**6))
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert drawn.count("&lt;script&gt;") >= 6, "title, heading, table, two legends, points"
    assert unescape(drawn).count("</script>\\x1b") >= 5


def test_more_models_than_colours_are_told_apart() -> None:
    drawn = comparison_page(made(["hybrid-demo"] * 9))
    names = re.findall(r'<li>.*?var\(--(.*?)\)(.*?)".*?</svg>(.*?)</li>', drawn)
    assert len(names) == 9
    assert len({(tone, "dash" in style) for tone, style, _ in names}) == 9


def test_the_same_models_give_the_same_page(page: str) -> None:
    assert comparison_page(made(memory=16 * 10**9)) == page
