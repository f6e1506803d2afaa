"""From any description to a plan or to faults: no other exception, within seconds, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_descriptions import DESCRIPTIONS
from test_hostile_source import limit_memory

HERE = Path(__file__).parent
#: Of processor time, so that a busy machine fails no test; most take a tenth.
SECONDS = 2.0
Result = tuple[list[str], float, int]


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What became of every text, each in a process of its own with 256 MiB."""
    begin = [sys.executable, str(HERE / "hostile_descriptions.py")]
    done = subprocess.run(begin, capture_output=True, text=True, check=False, preexec_fn=limit_memory)
    assert (done.returncode, done.stderr) == (0, "")
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_generated(name: str, results: dict[str, Result]) -> None:
    codes, seconds, size = results[name]
    expected = DESCRIPTIONS[name][1]
    assert expected in codes if expected else not codes
    assert seconds < SECONDS
    assert size < 200_000
