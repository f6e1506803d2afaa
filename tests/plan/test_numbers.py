"""Numbers of layers: one notation, which `overrides` reads."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from axon_compose import load
from axon_compose.plan import layer_numbers, layer_ranges
from axon_compose.report import Style, show_text
from axon_compose.report.draw import characters, picture
from tests.helpers import described, planned


def test_words() -> None:
    assert layer_numbers([3]) == "layer 3"
    assert layer_numbers([2, 0, 1]) == "layers 0..2"
    assert layer_ranges([0, 1, 2, 5, 7, 8]) == "0..2, 5, 7..8"
    assert layer_ranges([0, 6, 12, 18], most=4) == "0, 6, 12, 18"
    assert layer_ranges([0, 6, 12, 18, 24], most=4) == "0, 6, … 24"
    assert layer_ranges(range(8), most=1) == "0..7"


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 11), min_size=1))
def test_overrides_read_what_is_written(layers: set[int]) -> None:
    changed = [{"layers": layer_ranges(layers), "set": {"mlp.intermediate_size": 16}}]
    plan = planned(stack="a*12", overrides=changed)
    sizes = [layer.branches[1].members[0].use.written["intermediate_size"] for layer in plan.layers]
    assert {layer for layer, size in enumerate(sizes) if size == 16} == layers


def test_every_view_writes_layers_alike() -> None:
    """The picture in characters and as SVG, the tables of `show` and `cost`, and `diff`."""
    data = described(stack="a*4 s*3")
    architecture = load(data)
    plan = architecture.plan()
    changed = load(data | {"overrides": [{"layers": "0..3", "set": {"attn.num_heads": 4}}]})
    table = show_text(plan, Style())
    drawn = "\n".join(characters(plan, Style(), 100))
    other = str(architecture.diff(changed))
    for text in (table, drawn, picture(plan), other):
        assert "0..3" in text
        assert not re.search(r"\d–\d| step \d", text)
