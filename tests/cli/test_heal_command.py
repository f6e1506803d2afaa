"""`heal`: the receipts, the page, JSON, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import axon_compose
from axon_compose.cli import main
from tests.helpers import described

SHORT = ("--batch", "2", "--length", "16", "--steps", "4", "--samples", "0", "--evaluations", "2")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An edited model, its source, and a text."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    more: dict[str, Any] = {"dims": {"hidden_size": 32, "vocab_size": 259}}
    for name, blocks in (("source", described()["blocks"]), ("edited", described()["blocks"] | {"a": ["ssm", "mlp"]})):
        axon_compose.save(axon_compose.load(described(**more, blocks=blocks)).build(), tmp_path / name)
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 100)
    return [str(tmp_path / name) for name in ("edited", "source", "text.txt", "out")]


def run(folders: list[str], *more: str) -> int:
    edited, source, text, out = folders
    return main(["heal", edited, "--teacher", source, "--data", text, "-o", out, *SHORT, *more])


def test_receipts_and_a_folder_with_a_page(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders) == 0
    said = capsys.readouterr()
    assert said.out.startswith("edited learns from source, ")
    assert "layers by themselves" in said.out
    assert "predictions" in said.out
    assert f"axon-compose receipt {folders[1]} {folders[3]}" in said.err
    out = Path(folders[3])
    assert (out / "healing.html").read_text().startswith("<!doctype html>")
    assert json.loads((out / "receipts.json").read_text())["before"]["divergence"] > 0
    assert run(folders) == 2
    assert "--force" in capsys.readouterr().err


def test_a_text_of_standard_input_is_as_that_of_a_file(
    folders: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(folders[2]).read_bytes()
    curves = []
    for data in (folders[2], "-"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert run([*folders[:2], data, folders[3]], "--json", "--force") == 0
        curves.append(json.loads(capsys.readouterr().out)["result"]["curve"])
    assert curves[0] == curves[1]


def test_json(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "--json", "--first", "0") == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert [stage for stage, _, _ in result["curve"]] == ["", "logits", "logits"]
    assert result["finished"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--first", "2"], "from 0 to 1"),
        (["--teacher-weight", "-1"], "from 0 to 1"),
        (["--temperature", "0"], "above 0"),
        (["--temperature", "inf"], "above 0"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_wrong_usage(folders: list[str], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folders, *arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_pattern_that_names_nothing(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "--learn", "layers.*.mpl") == 2
    assert "did you mean `layers.*.mlp`?" in capsys.readouterr().err
