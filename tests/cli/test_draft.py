"""`import` for checkpoints that no family reads, and the list of families."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from axon_compose.cli import main
from tests.checkpoints.test_likeness import renamed


def test_an_unknown_type_is_answered_with_the_nearest_families(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = renamed("olmo2", tmp_path / "quill", {"quill_scale": 0.5})
    assert main(["import", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "error[AX606]: no family reads the model type `quill`" in said
    lines = said[said.index("nearest families") :].splitlines()
    assert "  olmo2 does not know quill_scale" in [re.sub(r"(?<=\w) +", " ", line) for line in lines[1:4]]
    assert lines[-1].endswith(f"axon-compose import {folder} --draft quill.yaml")


def test_a_draft_is_written_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, target = renamed("qwen3", tmp_path / "quill"), tmp_path / "quill.yaml"
    assert main(["import", str(folder), "--draft", str(target)]) == 0
    said = capsys.readouterr().err
    commands = [line.split()[1:] for line in said.splitlines() if line.startswith("  axon-compose")]
    assert main(commands[0]) == 0
    assert main(["build", str(target), "--weights", str(folder)]) == 0
    assert main(["import", str(folder), "--draft", str(target)]) == 2  # it is there already
    assert main(["import", str(folder), "--draft", str(target), "--family", "llama", "--force"]) == 0
    assert "extends: llama" in target.read_text()
    assert main(["import", str(folder), "--draft", str(target), "--family", "quill", "--force"]) == 2


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = renamed("qwen3", tmp_path / "quill", {"quill_scale": 0.5})
    assert main(["import", str(folder), "--draft", str(tmp_path / "d.yaml"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert (result["family"], result["unknown"]) == ("qwen3", ["quill_scale"])


def test_the_families_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--families"]) == 0
    everything = capsys.readouterr().out
    assert main(["import", "--families", "FALCON"]) == 0
    some = capsys.readouterr().out.splitlines()
    assert some[0] == "families"
    assert {line.split()[0] for line in some[1:]} >= {"falcon_h1", "falcon_mamba"}
    assert all("falcon" in line.lower() for line in some[1:])
    assert {line.split()[0] for line in some} < {line.split()[0] for line in everything.splitlines()}
    assert main(["import", "--families", "falcn"]) == 1


def test_neither_folder_nor_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["import"])
    assert caught.value.code == 2
    assert "--families" in capsys.readouterr().err
