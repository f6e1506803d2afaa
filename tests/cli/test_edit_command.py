"""`edit`: the plan, the folder and its receipt, JSON, and what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import axon_compose
from axon_compose.cli import main
from axon_compose.language.layout import to_text
from axon_compose.surgery import _make
from tests.surgery.edits import changed

EDITS = [{"layers": "0..1", "set": {"attn.window_size": 4}}, {"insert": {"after": 1}}, {"drop": 3}]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, an edit file beside it, and a short text."""
    model = changed(dims={"hidden_size": 32, "vocab_size": 259})
    axon_compose.save(axon_compose.load(model).build(), tmp_path / "model", tokenizer="bytes")
    (tmp_path / "model.yaml").write_text(to_text(model))
    (tmp_path / "edit.yaml").write_text(to_text({"version": 1, "source": "model", "edits": EDITS}))
    (tmp_path / "bare.yaml").write_text(to_text({"version": 1, "source": "model.yaml", "edits": EDITS}))
    (tmp_path / "text.txt").write_text("the cat sat on the mat; " * 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_folder_the_plan_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", "edit.yaml"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("small: 6 layers\n")
    assert main(["edit", "edit.yaml", "--plan", "--out", "out"]) == 0
    assert capsys.readouterr().out == shown
    assert not (place / "out").exists()
    assert main(["edit", "bare.yaml", "--weights", "model"]) == 0
    assert main(["edit", "bare.yaml"]) == 0


def test_standard_input_and_json(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (place / "edit.yaml").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text), isatty=lambda: False))
    assert main(["edit", "-", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["origins"] == [0, 1, None, 3, 4, 5]
    assert result["layers"] == {"before": 6, "after": 6}
    assert {step["kind"] for step in result["steps"]} == {"kept", "new"}
    assert result["architecture"]["components"].keys() == {"attn", "keys", "reading", "mlp"}


def test_a_folder_is_written_with_its_receipt(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["edit", "edit.yaml", "-o", "out", "--text", "text.txt", "--length", "32", "--json"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)["result"]
    assert result["out"] == "out"
    assert result["receipt"]["divergence"] >= 0
    assert "axon-compose heal out --teacher model" in said.err
    assert len(axon_compose.load(place / "out").plan().layers) == 6
    assert main(arguments) == 2
    assert "AX501" in capsys.readouterr().out
    assert main([*arguments, "--force", "--no-receipt"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["receipt"] is None


def test_weights_are_needed_to_write(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", "bare.yaml", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert "AX929" in said
    assert "--weights DIR" in said


def test_a_faulty_edit_is_shown_at_its_place(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "edit.yaml").write_text("version: 1\nsource: model\nedits:\n  - drop: 9\n")
    assert main(["edit", "edit.yaml", "--out", "out"]) == 1
    said = capsys.readouterr().err
    assert "error[AX922]: there is no layer 9" in said
    assert "edit.yaml:4:11" in said
    assert main(["edit", "nowhere.yaml"]) == 2


def test_nothing_is_left_of_a_write_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def take(self: _make.Maker, path: str, name: str) -> object:
        taken.append(name)
        if len(taken) > 20:
            raise OSError(28, "No space left on device")
        return whole(self, path, name)

    whole = _make.Maker.take
    monkeypatch.setattr(_make.Maker, "take", take)
    before = sorted(path.name for path in place.iterdir())
    assert main(["edit", "edit.yaml", "--out", "out", "--no-receipt"]) == 2
    assert len(taken) == 21
    assert sorted(path.name for path in place.iterdir()) == before
