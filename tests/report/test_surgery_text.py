"""The plan of an edit in the terminal and in notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path

from axon_compose.report import Style
from axon_compose.report._surgery import surgery_text
from axon_compose.surgery import SurgeryPlan
from tests.surgery.edits import MODEL, edited


def plan(tmp_path: Path) -> SurgeryPlan:
    (tmp_path / "model.yaml").write_text(json.dumps(MODEL))
    wide = {"type": "mlp", "intermediate_size": 96}
    return edited(
        tmp_path / "model.yaml",
        {"layers": "0..2", "set": {"attn.window_size": 8}},
        {"layers": 3, "replace": {"mlp": wide}, "init": "random"},
        {"drop": 0},
    )


def test_equal_layers_are_one_branch(tmp_path: Path) -> None:
    text = surgery_text(plan(tmp_path))
    assert text.startswith("small: 6 → 5 layers\nembedding  kept\nlayers 0..1  from layers 1..2\n")
    assert "  attn  kept  window_size: none → 8\n" in text
    assert "layer 2  from layer 3\n" in text
    assert "    gate_proj.weight, up_proj.weight, down_proj.weight  random  as training begins with it\n" in text
    assert "layers 3..4  from layers 4..5  kept\n" in text
    sums = dict(re.findall(r"^(kept|converted|new|dropped) +(\d+)", text, re.MULTILINE))
    assert sums == {"kept": "42", "converted": "0", "new": "3", "dropped": "12"}
    assert "cost" in text


def test_colours_say_how_sure_a_tensor_is(tmp_path: Path) -> None:
    assert "\x1b[1;33mrandom\x1b[0m" in surgery_text(plan(tmp_path), Style(colour=True))


def test_a_notebook_shows_three_tables(tmp_path: Path) -> None:
    html = plan(tmp_path)._repr_html_()
    assert html.count("<table>") == 3
    assert "window_size: none → 8" in html
