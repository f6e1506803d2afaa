"""`race`: usage, the table, the page, and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from axon_compose.cli import main
from tests.learn.race.small_race import ATTENTION, STATE

SHORT = ("--task", "mqar:pairs=2,vocab=8", "--budget", "2steps", "--seeds", "2", "--rates", "1e-2", "--batch", "4")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two descriptions."""
    for data in (ATTENTION, STATE):
        (tmp_path / f"{data['name']}.yaml").write_text(yaml.safe_dump(data))
    return [str(tmp_path / f"{data['name']}.yaml") for data in (ATTENTION, STATE)]


def test_a_table_verdicts_and_terms(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["race", *files, *SHORT]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mqar:pairs=2,vocab=8: accuracy of 2 models after 2 steps, 2 seeds\n")
    assert "no difference can be told between" in out
    assert "a blind answer gets 25.0%" in out
    assert "learning rate 0.01 for all" in out


def test_json_and_a_page_that_needs_nothing_else(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "race.html"
    assert main(["race", *files, *SHORT, "--json", "-o", str(target), "--folder", str(tmp_path / "kept")]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert [each["name"] for each in result["entrants"]] == ["attention", "state"]
    assert len(result["runs"]) == 4
    assert result["settings"]["rates"] == [0.01]
    page = target.read_text()
    assert all(f"Accuracy over {what}" in page for what in ("tokens", "operations", "time"))
    assert "Accuracy against caches" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    picture = tmp_path / "race.svg"
    assert main(["race", *files, *SHORT, "-o", str(picture), "--folder", str(tmp_path / "kept")]) == 0
    assert picture.read_text().startswith("<svg")
    assert ">chance<" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "5 apples"], "'5 apples' is not a budget"),
        (["--rates", "1e-3,1e-3"], "different numbers above 0"),
        (["--rates", "0"], "different numbers above 0"),
        (["--task", "mqar", "--data", "python-docs"], "not allowed with argument --task"),
        (["--length", "64"], "are for --data"),
        (["--match", "speed"], "invalid choice"),
        (["-o", "race.pdf"], "ends in none of .html, .svg"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["race", "hybrid-demo", *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_all_faults_of_files_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["race", "hybrid-dmo", *SHORT]) == 2
    assert main(["race", "hybrid-demo", "--task", "nedle"]) == 1
    assert "did you mean `needle`?" in capsys.readouterr().err


def test_text_is_scored_by_bits(files: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 400)
    arguments = ["--data", str(tmp_path / "text.txt"), "--length", "16", "--budget", "2steps", "--seeds", "1"]
    assert main(["race", *files, *arguments, "--rates", "1e-2", "--batch", "2"]) == 0
    out = capsys.readouterr().out
    assert "bits a byte of 2 models" in out
    assert "fewer than two seeds have ended" in out
