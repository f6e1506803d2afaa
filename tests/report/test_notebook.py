"""What a notebook shows: well-formed markup in which names of files are text."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from axon_compose import Architecture, compare, load
from axon_compose.proof.bench import Measurement, Workload
from axon_compose.proof.check import CheckReport, Truth
from axon_compose.proof.verify import verify
from tests.helpers import described

EVIL = "<script>alert(1)</script>&\"'"
VOID = {"img", "br"}


class Strict(HTMLParser):
    """Every element that is opened is closed, in order; keeps the text, the tags and the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.attributes: dict[str, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= dict(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(result: Any) -> Strict:
    reader = Strict()
    reader.feed(result._repr_html_())
    reader.close()
    assert not reader.open
    assert "script" not in reader.tags
    return reader


def evil() -> Architecture:
    """A model whose name is markup; a file cannot have such a one, a plan made otherwise can."""
    found = load(described(stack="a*2"))
    return replace(found, _plan=replace(found.plan(), name=EVIL))


def report() -> CheckReport:
    truths = (Truth("steps", "a = b", False, 0.5, 1e-5, detail=EVIL), Truth("large", EVIL, True, 0.0, 1.0))
    return CheckReport(EVIL, 0, 2, 2, truths)


def measured() -> Any:
    found = compare([evil(), "llama-small"], measure=False, context=32)
    rows = (replace(row, measured=Measurement(EVIL, fault=EVIL)) for row in found.rows)
    return replace(found, rows=tuple(rows), workload=Workload())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (evil().plan, ["attn → mlp", "KVCache", "cache trimming"]),
        (lambda: evil().cost(memory=10**6), ["longest context", "attn"]),
        (lambda: evil().diff(load(described(name=None))), ["removed"]),
        (report, ["1 of 2 checks failed", "5.0e-01"]),
        (measured, ["not measured", "llama-small", "cache at 32"]),
    ],
    ids=["plan", "cost", "diff", "check", "compare"],
)
def test_results_are_tables_with_names_as_text(make: Callable[[], Any], told: list[str]) -> None:
    found = parsed(make())
    assert EVIL in found.text
    assert {"table", "td", "th"} <= found.tags
    for words in told:
        assert words in found.text


def test_an_architecture_is_its_picture() -> None:
    found = parsed(evil())
    assert found.attributes["alt"] == f"{EVIL}: the stack of layers"
    kind, _, data = str(found.attributes["src"]).partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b64decode(data).startswith(b"<svg ")
    assert found.text == ""


def test_advice() -> None:
    advice = load(described()).lint()
    assert advice
    assert advice == tuple(advice)
    found = parsed(advice)
    for one in advice:
        assert one.code in found.text
        assert one.message in found.text
        assert f"warning[{one.code}]: {one.message}" in str(advice)
    assert re.search(r"^ *\|", str(advice), re.MULTILINE), "an excerpt of the description"
    nothing = load("qwen3_moe").lint()
    assert not nothing
    assert parsed(nothing).text == str(nothing) == "nothing to say"


def test_a_verification() -> None:
    folder = Path(__file__).parents[1] / "families" / "fixtures" / "llama"
    found = parsed(verify(folder, against=("mlx-lm",), tokens=8))
    assert found.tags == {"pre"}
    assert "the same as mlx-lm" in found.text


def test_check_from_the_front_door() -> None:
    found = load(described(stack="s")).check(seed=3, truths=["parameters", "steps"])
    assert isinstance(found, CheckReport)
    assert found.seed == 3
    assert [truth.name for truth in found.truths] == ["parameters", "steps"]
    assert found.passed
    assert "2 checks passed" in parsed(found).text
