"""`edit --rank`: the table, the edit that is proposed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import axon_compose
from axon_compose.cli import main
from tests.helpers import described


@pytest.fixture
def place(tmp_path: Path) -> Path:
    data = described(dims={"hidden_size": 32, "vocab_size": 259}, stack="a s a")
    axon_compose.save(axon_compose.load(data).build(), tmp_path / "model", tokenizer="bytes")
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 10)
    return tmp_path


def run(place: Path, *more: str, change: str = "attn -> window:8") -> int:
    text = ["--text", str(place / "text.txt"), "--length", "24", "--sequences", "1", "--context", "1000"]
    return main(["edit", str(place / "model"), "--rank", change, *text, *more])


def test_a_table_and_an_edit_file_that_works(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = place / "windows.yaml"
    assert run(place, "--cache", "200kB", "-o", str(target)) == 0
    said = capsys.readouterr()
    assert "attn -> window:8, in one layer at a time" in said.out
    assert "proposed" in said.out
    assert f"axon-compose edit {target} --out DIR" in said.err
    assert main(["edit", str(target), "--plan"]) == 0
    assert run(place, "-o", str(target)) == 2
    assert "--force" in capsys.readouterr().err


def test_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--json") == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert sorted(each["index"] for each in result["layers"]) == [0, 2]
    assert result["chosen"] is None
    assert result["edit"]["edits"] == [{"layers": "0, 2", "set": {"attn.window_size": 8}}]


def test_what_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, change="atn -> window:8") == 2
    assert "error[AX955]" in capsys.readouterr().err
    assert run(place, change="attn -> window:0") == 1
    assert "<edits>:" in capsys.readouterr().err
    assert run(place, "--cache", "10B") == 2
    assert "error[AX956]" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run(place, "-o", str(place / "folder"))
    assert stop.value.code == 2
    assert "the edit file to write" in capsys.readouterr().err
