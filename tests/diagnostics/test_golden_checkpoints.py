"""Every bad checkpoint of `checkpoint_folders` gives exactly the text in `checkpoints/`, and the exit code expected.

What a user sees is held: the output of the command, both streams. `UPDATE_GOLDEN=1` writes the texts anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from checkpoint_folders import CASES, FOLDER

from axon_compose.cli import main

GOLDEN = Path(__file__).parent / "checkpoints"

#: Not in the texts, so that a new family does not change them.
NEAREST = re.compile(r"(?<=^nearest families\n)(  .*\n)+", re.MULTILINE)

cases = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says of a bad checkpoint, with its exit code before it."""
    monkeypatch.chdir(tmp_path)
    CASES[name].make(tmp_path / FOLDER)
    code = main(list(CASES[name].command))
    out, err = capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) in ([FOLDER], []), "nothing was written or run"
    told = f"$ axon-compose {' '.join(CASES[name].command)}\n{out}{err}exit {code}\n"
    return NEAREST.sub("  three of them\n", told)


@cases
def test_golden(name: str, told: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8")


@cases
def test_tells_what_a_person_expects(name: str, told: str) -> None:
    case = CASES[name]
    assert told.endswith(f"exit {case.exit}\n")
    assert re.findall(r"^error\[(\w+)\]", told, re.MULTILINE) == [case.code], told
    for text in case.shown:
        assert text in told


def test_every_text_is_of_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == CASES.keys()
