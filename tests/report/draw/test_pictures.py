"""Pictures: every layer is on one card, every number is the plan's, nothing leaves the canvas, bytes never change."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import axon_compose
from axon_compose.plan import Layer, Plan, total_parameters
from axon_compose.report.draw import page, picture
from axon_compose.report.draw._fold import Card, Node, cards, fold
from axon_compose.report.draw._markup import element, text
from axon_compose.report.draw._palette import _FAMILIES, _GROUND
from axon_compose.report.draw._words import fitted, share, width
from tests.shipped import VARIED, shipped

ROOT = Path(__file__).resolve().parents[3]
SHOWN = ("bit-axon", "gemma3_text", "nemotron_h")
SVG = "{http://www.w3.org/2000/svg}"
SHARED = {
    "version": 1,
    "name": "shared",
    "dims": {"hidden_size": 64, "vocab_size": 128},
    "components": {
        "ssm": {"type": "axon_ssm", "d_state": 8},
        "attn": {"type": "attention", "num_heads": 4},
        "mlp": {"type": "mlp", "intermediate_size": 128},
    },
    "blocks": {"mix": ["ssm"], "look": {"share": "look", "branches": ["attn", "mlp"]}},
    "stack": "(mix*2 look)*3",
}


def plan_of(name: str) -> Plan:
    return shipped(name).plan()


def expanded(nodes: Sequence[Node], seen: dict[int, int]) -> Iterator[Layer]:
    """Layers in the order in which a reader of the picture would say them."""
    for node in nodes:
        if isinstance(node, Card):
            turn = seen[id(node)] = seen.get(id(node), -1) + 1
            yield node.layers[turn]
        else:
            for _ in range(node.times):
                yield from expanded(node.nodes, seen)


@pytest.mark.parametrize("name", VARIED)
def test_repetitions_are_folded_and_no_layer_is_lost(name: str) -> None:
    plan = plan_of(name)
    nodes = fold(plan)
    assert [layer.index for layer in expanded(nodes, {})] == list(range(len(plan.layers)))
    for card in cards(nodes):
        assert len({(layer.size, repr(layer.cache), layer.block) for layer in card.layers}) == 1


def test_repetitions_stand_inside_one_another() -> None:
    assert [len(card.layers) for card in cards(fold(plan_of("gemma3_text")))] == [20, 4, 2]
    assert len(list(cards(fold(plan_of("nemotron_h"))))) == 9


@pytest.mark.parametrize("name", VARIED)
def test_numbers_in_a_picture_add_up_to_the_model(name: str) -> None:
    plan = plan_of(name)
    root = ET.fromstring(picture(plan))
    shown = 0
    for found in root.iter(f"{SVG}text"):
        if found.get("class") == "small end" and (match := re.fullmatch(r"(?:(\d+) × )?([\d,]+)", found.text or "")):
            shown += int(match[1] or 1) * int(match[2].replace(",", ""))
    norms = sum(use.size for layer in plan.layers if layer.owner is None for use in layer.uses() if _is_bar(use))
    side_by_side = sum(
        member.use.size
        for layer in plan.layers
        for branch in layer.branches
        for member in branch.members
        if len(branch.members) > 1
    )
    assert shown + norms + side_by_side == total_parameters(plan)


def _is_bar(use: object) -> bool:
    return use.spec.kind in ("norm", "connection")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_tells_the_exact_totals(name: str) -> None:
    plan = plan_of(name)
    assert f"{total_parameters(plan):,}" in page(plan)


def placed(root: ET.Element) -> Iterator[tuple[float, float, float, str]]:
    """Left, right and height of every text, by a guess at its width that is meant to be too large."""
    for found in root.iter(f"{SVG}text"):
        class_ = (found.get("class") or "").split()
        size = {"title": 20, "lead": 13, "name": 13, "times": 13}.get(class_[0], 11)
        room = width(found.text or "", size, strong=class_[0] in ("title", "name"))
        room += sum(6 + width(inner.text or "", 11) for inner in found)
        x, y = float(found.get("x", 0)), float(found.get("y", 0))
        left = x - room if "end" in class_ else x - room / 2 if "middle" in class_ else x
        yield left, left + room, y, "".join(found.itertext())


@pytest.mark.parametrize("size", [350.0, 560.0])
@pytest.mark.parametrize("name", [*VARIED, "shared blocks"])
def test_no_text_leaves_the_canvas_or_meets_another(name: str, size: float) -> None:
    plan = axon_compose.load(SHARED).plan() if name == "shared blocks" else plan_of(name)
    root = ET.fromstring(picture(plan, width=size))
    texts = sorted(placed(root), key=lambda found: (found[2], found[0]))
    for left, right, y, said in texts:
        assert left >= -0.5, said
        assert right <= size + 0.5, said
        assert 0 < y < float(root.get("height", 0)), said
    for before, after in pairwise(texts):
        assert before[2] != after[2] or before[1] <= after[0] + 0.5, (before[3], after[3])


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_of_the_docs_are_what_is_drawn(name: str) -> None:
    committed = (ROOT / "docs/pictures" / f"{name}.svg").read_text("utf-8")
    assert picture(plan_of(name)) == committed, f"run `axon-compose draw {name} -o docs/pictures/{name}.svg --force`"


def arcs(plan: Plan) -> list[str]:
    root = ET.fromstring(picture(plan))
    longest = [found for found in root.iter(f"{SVG}path") if (found.get("d") or "").count("Q") == 2]
    return sorted(found.get("class", "") for found in longest if found.get("class", "").startswith("arc"))


def test_sharing_is_drawn_as_arcs() -> None:
    assert arcs(plan_of("bit-axon")) == []
    assert arcs(plan_of("gemma3_text")) == ["arc dashed"]  # the head is tied to the embedding
    assert arcs(plan_of("shared-kv")) == ["arc", "arc", "arc dashed"]
    assert arcs(plan_of("rwkv7")) == ["arc"]
    shared = axon_compose.load(SHARED).plan()
    assert arcs(shared) == ["arc dashed", "arc dashed"]
    assert "weights of layer 2" in picture(shared)


def test_members_stand_side_by_side() -> None:
    root = ET.fromstring(picture(plan_of("parallel-hybrid")))
    boxes = {found.get("class"): found for found in root.iter(f"{SVG}rect") if found.find(f"{SVG}title") is not None}
    state, attention = boxes["recurrent"], boxes["attention"]
    assert state.get("y") == attention.get("y")
    assert float(state.get("x", 0)) + float(state.get("width", 0)) < float(attention.get("x", 0))


def test_a_page_needs_nothing_from_elsewhere() -> None:
    for name in (*SHOWN, "gpt2"):
        found = page(plan_of(name))
        assert not re.search(r"<script|<link|<img|@import|url\(|(?:src|href)=", found)
        assert "http" not in found.replace("http://www.w3.org/2000/svg", "")


def test_both_themes_or_one() -> None:
    plan = plan_of("hybrid-demo")
    assert "prefers-color-scheme:dark" in picture(plan)
    assert "prefers-color-scheme" not in picture(plan, theme="light") + picture(plan, theme="dark")


def test_words() -> None:
    assert (share(0, 5), share(1, 10**6), share(5, 5), share(1, 3)) == ("0 %", "< 0.1 %", "100 %", "33.3 %")
    assert fitted("sliding_window", 40, 11).endswith("…")
    assert fitted("ssm", 40, 11) == "ssm"


def test_markup_is_escaped() -> None:
    assert element("text", text("a<b & c"), class_='x"y') == '<text class="x&quot;y">a&lt;b &amp; c</text>'
    said = "a<b> & \"c\" 'd'\te\nf\rg"
    read = ET.fromstring(element("text", text("a<b> & c"), class_=said))
    assert (read.get("class"), read.text) == (said, "a<b> & c")


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it, from 1 to 21."""

    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [0, 1])
def test_colours_can_be_read(dark: int) -> None:
    ink, quiet, paper, panel, *_ = _GROUND[dark]
    for ground in (paper, panel):
        assert contrast(ink, ground) >= 7
        assert contrast(quiet, ground) >= 4.5
    for name, themes in _FAMILIES.items():
        fill, stroke, strong = themes[dark]
        assert contrast(ink, fill) >= 7, name
        assert contrast(quiet, fill) >= 4.5, name
        assert contrast(stroke, paper) >= 3, name
        assert contrast(strong, paper) >= 3, name
