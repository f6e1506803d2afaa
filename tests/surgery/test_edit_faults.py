"""Whatever is wrong with an edit file is said with its code, its place and a hint that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from axon_compose import ArchitectureError
from axon_compose.diagnostics import CheckpointError
from axon_compose.diagnostics.codes import CODES
from axon_compose.language.layout import to_text
from axon_compose.surgery import plan_edit
from tests.surgery.edits import MODEL, changed, edited

EXAMPLE = re.compile(r"^```yaml\n# (wrong|right)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(code, kind, text, id=f"{code}-{kind}")
    for code, entry in CODES.items()
    if code.startswith(("AX92", "AX93"))
    for kind, text in EXAMPLE.findall(entry.explanation)
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.yaml").write_text(to_text(MODEL))
    return tmp_path / "model.yaml"


@pytest.mark.parametrize(("code", "kind", "text"), EXAMPLES)
def test_the_examples_of_the_explanations(code: str, kind: str, text: str, model: Path) -> None:
    file = model.parent / "edit.yaml"
    file.write_text(f"version: 1\nsource: model.yaml\n{text}")
    if kind == "right":
        plan_edit(file)
        return
    with pytest.raises(ArchitectureError) as caught:
        plan_edit(file)
    assert {fault.code for fault in caught.value.diagnostics} == {code}
    assert all(fault.span and fault.span.file == str(file) and fault.help for fault in caught.value.diagnostics)


def fault(model: Path, *edits: dict[str, Any]) -> Any:
    with pytest.raises(ArchitectureError) as caught:
        edited(model, *edits)
    assert len(caught.value.diagnostics) == 1, str(caught.value)
    return caught.value.diagnostics[0]


@pytest.mark.parametrize(
    ("edit", "code", "message"),
    [
        ({"drop": 6}, "AX922", "there is no layer 6"),
        ({"drop": -7}, "AX922", "there is no layer -7"),
        ({"drop": "2..1"}, "AX921", "ends before it begins"),
        ({"drop": "0..3 step 0"}, "AX921", "a step of 0"),
        ({"drop": "=nothing"}, "AX120", "unknown name `nothing`"),
        ({"set": {"attn": 3}}, "AX102", "`attn` is not `component.option`"),
        ({"set": {"attn.widow_size": 3}}, "AX101", "unknown option `widow_size`"),
        ({"set": {"attn.window_size": 0}}, "AX102", "must be more than 0"),
        ({"set": {"head.tied": 3}}, "AX102", "must be"),
        ({"layers": 0, "set": {"head.tied": False}}, "AX923", "outside of the layers"),
        ({"layers": "3..5", "set": {"attn.window_size": 8}}, "AX923", "layers 4..5 have no component `attn`"),
        ({"replace": {"mlp": {"type": "mpl", "intermediate_size": 8}}}, "AX202", "mpl"),
        ({"replace": {"mlp": {"type": "rms_norm"}}, "layers": 0, "init": "zero_out"}, "AX926", "add"),
        ({"replace": {"mlp": {"type": "mlp", "intermediate_size": 8}}, "init": "coppy"}, "AX927", "no way `coppy`"),
        ({"replace": {"mlp": {"type": "mlp", "intermediate_size": "=wide"}}, "init": "random"}, "AX120", "`wide`"),
        ({"insert": {"after": 0, "block": "laier"}}, "AX923", "no block `laier`"),
        ({"insert": {"after": "0..1"}}, "AX921", "one is needed"),
        ({"repeat": {"layers": "0..9"}}, "AX922", "there is no layer 9"),
        ({"drop": 1, "init": "random"}, "AX920", "`init` does not go with `drop`"),
        ({"layers": 1, "drop": 1}, "AX920", "`layers` does not go with `drop`"),
        ({}, "AX920", "this one has none"),
        ({"dorp": 1}, "AX101", "dorp"),
        ({"drop": 4}, "AX928", "no layer before layer 4 has the `keys` that `reading` reads"),
    ],
)
def test_a_fault_and_its_place(model: Path, edit: dict[str, Any], code: str, message: str) -> None:
    found = fault(model, edit)
    assert (found.code, message in found.message) == (code, True), found
    assert found.span is not None
    assert found.span.file == "<edits>"


def test_what_is_wrong_with_the_file_itself(model: Path) -> None:
    for data, code in (
        ({"version": 2, "source": "x", "edits": [{"drop": 1}]}, "AX105"),
        ({"version": 1, "edits": [{"drop": 1}]}, "AX103"),
        ({"version": 1, "source": "x", "edits": []}, "AX102"),
        ({"version": 1, "source": "x", "edits": [{"drop": 1}], "layers": 3}, "AX101"),
    ):
        with pytest.raises(ArchitectureError) as caught:
            plan_edit(data)
        assert [found.code for found in caught.value.diagnostics] == [code]


def test_two_edits_of_one_component_name_both_places(model: Path) -> None:
    attention = {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "window_size": 4}
    for first, second in (
        ({"set": {"attn.window_size": 8}}, {"layers": 1, "set": {"attn.window_size": 9}}),
        ({"replace": {"attn": attention}}, {"layers": 1, "replace": {"attn": attention}}),
        ({"set": {"attn.window_size": 8}}, {"layers": 1, "replace": {"attn": attention}}),
        ({"replace": {"mlp": {"type": "axon_ssm", "d_state": 4}}, "init": "random"}, {"set": {"mlp.bias": True}}),
    ):
        found = fault(model, first, second)
        assert found.code == "AX924"
        assert len(found.labels) == 1


def test_every_edit_is_looked_at(model: Path) -> None:
    with pytest.raises(ArchitectureError) as caught:
        edited(model, {"layers": 9, "set": {"attn.window_size": 8}}, {"set": {"mlp.biass": True}}, {"drop": "a"})
    assert [found.code for found in caught.value.diagnostics] == ["AX922", "AX101", "AX921"]


def test_a_layer_number_counts_what_is_left(model: Path) -> None:
    found = fault(model, {"drop": 0}, {"drop": 5})
    assert found.label == "the edits before leave 5 of 6 layers"


def test_layers_that_share_weights_are_edited_together(tmp_path: Path) -> None:
    model = changed(blocks={"layer": {"branches": ["attn", "mlp"], "share": "all"}}, stack="layer*3")
    model["components"] = {name: model["components"][name] for name in ("attn", "mlp")}
    (tmp_path / "model.yaml").write_text(to_text(model))
    found = fault(tmp_path / "model.yaml", {"layers": 0, "set": {"attn.num_kv_heads": 1}})
    assert (found.code, found.help) == ("AX926", "edit all of them: `layers: 0..2`")
    plan = edited(tmp_path / "model.yaml", {"set": {"attn.num_kv_heads": 1}}, {"drop": 0})
    assert [layer.owner for layer in plan.edited.plan().layers] == [None, 0]
    windows = edited(tmp_path / "model.yaml", {"layers": 1, "set": {"attn.window_size": 8}})
    assert windows.totals()["kept"].tensors == len(windows.steps)


def test_adapters_are_joined_first(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="AX929"):
        edited(tmp_path, {"drop": 0})
