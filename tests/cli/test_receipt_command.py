"""`receipt`: the table, JSON, the page, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import axon_compose
from axon_compose.cli import main
from tests.helpers import described

WINDOW = {"type": "attention", "num_heads": 2, "window_size": 8}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model, the same with a window, and one with a layer less."""
    place = tmp_path_factory.mktemp("models")
    more = {"dims": {"hidden_size": 32, "vocab_size": 259}}
    windowed = described(**more, name="windowed", components=described()["components"] | {"attn": WINDOW})
    for name, data in (("full", described(**more)), ("windowed", windowed), ("shorter", described(**more, stack="a w")),
                       ("other", described(dims={"hidden_size": 32, "vocab_size": 300}))):  # fmt: skip
        axon_compose.save(axon_compose.load(data).build(), place / name, tokenizer="bytes")
    (place / "text.txt").write_text("the cat sat on the mat; " * 20)
    return {path.name: str(path) for path in place.iterdir()}


def run(folders: dict[str, str], *arguments: str) -> int:
    return main(["receipt", *(folders.get(each, each) for each in arguments), "--text", folders["text.txt"]])


def test_a_window_parts_in_its_layer(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "full", "windowed", "--length", "32", "--sequences", "2") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"windowed against full, 64 tokens of {folders['text.txt']}\n")
    assert "they first part in layer 0 (attn, mlp)" in out
    assert "2 sequences of 32 tokens, computed in float32" in out


def test_json_and_a_page(folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, picture = tmp_path / "receipt.html", tmp_path / "receipt.svg"
    assert run(folders, "full", "full", "--json", "-o", str(page), "--length", "32") == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["exact"]
    assert result["divergence"] == 0
    assert result["file"] == str(page)
    assert page.read_text().startswith("<!doctype html>")
    assert run(folders, "full", "windowed", "-o", str(picture), "--length", "32") == 0
    assert picture.read_text().startswith("<svg")
    assert run(folders, "full", "windowed", "-o", str(picture), "--length", "32") == 2
    assert "--force" in capsys.readouterr().err


def test_models_with_other_layers_are_compared_by_their_predictions(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folders, "full", "shorter", "--length", "32") == 0
    assert "the layers are not compared" in capsys.readouterr().out


def test_models_with_other_tokens_are_refused(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "full", "other") == 2
    assert "error[AX951]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--length", "1"], "not a number from 2"),
        (["-o", "a.png"], "ends in none of"),
        (["--dtype", "int8"], "invalid"),
    ],
)
def test_wrong_usage(folders: dict[str, str], arguments: list[str], said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folders, "full", "full", *arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_what_an_edit_has_noted_is_read(folders: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    """Which layer is which, and the tokens that are left; a damaged note is refused."""
    shorter = Path(folders["shorter"])
    copy = tmp_path / "edited"
    copy.mkdir()
    for file in shorter.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    for note, code in (({"origins": [0, 2], "changed": ["layers.1.mlp"]}, 0), ({"origins": [0]}, 2), ({}, 2), ([], 2),
                       ({"origins": [0, 2], "changed": ["layers.7.mlp"]}, 2), ({"origins": [0, "1"]}, 2)):  # fmt: skip
        config["axon_compose"]["edit"] = note
        (copy / "config.json").write_text(json.dumps(config))
        assert run(folders, "full", str(copy), "--length", "32") == code
        said = capsys.readouterr()
        assert ("error[AX950]" in said.err) == bool(code)
        assert bool(re.search("^ +1 +2 +swa, mlp", said.out, re.MULTILINE)) == (not code)
