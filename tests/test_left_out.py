"""A run of the suite says in one line, at its end, which tests it left out for want of something optional."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """\
import pytest

@pytest.mark.parametrize("x", [1, 2])
@pytest.mark.skipif(True, reason="needs a harp")
def test_harp(x): ...

def test_flute():
    pytest.importorskip("no_such_flute", reason="needs a flute")

@pytest.mark.skip(reason="another reason")
def test_other(): ...

def test_runs(): ...
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_what_was_left_out_is_said_in_one_line(workers: list[str], tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        *workers,
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    *_, line, last = done.stdout.splitlines()
    assert line == "tests left out: 1 x needs a flute; 2 x needs a harp"
    assert "1 passed, 4 skipped" in last
