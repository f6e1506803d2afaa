"""Every bad file in `cases/` gives exactly the diagnostics in the text file beside it.

To write them anew after a deliberate change: `UPDATE_GOLDEN=1 pytest tests/diagnostics`, then read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.report import render

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
SETTINGS = re.compile(r"^# --set (.*)$", re.MULTILINE)


def diagnose(case: Path) -> str:
    settings = SETTINGS.findall(case.read_text(encoding="utf-8"))
    with pytest.raises(ArchitectureError) as caught:
        load(case.name, settings=settings)
    error = caught.value
    return render(error.diagnostics, error.sources, dropped=error.dropped) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_golden(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.parent)
    found = diagnose(case)
    golden = case.with_suffix(".txt")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def expectations(case: Path) -> list[tuple[str, int | None, str | None]]:
    """`# expect AX101 line 6 near d_state` comments of a case: code, line and the nearest valid name."""
    pattern = re.compile(r"^# expect (AX\d{3})(?: line (\d+))?(?: near (\S+))?$", re.MULTILINE)
    return [(m[1], int(m[2]) if m[2] else None, m[3]) for m in pattern.finditer(case.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_names_the_right_line_and_the_nearest_name(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person wrote down beforehand, so that a golden file written by the code is not its own witness."""
    monkeypatch.chdir(case.parent)
    settings = SETTINGS.findall(case.read_text(encoding="utf-8"))
    with pytest.raises(ArchitectureError) as caught:
        load(case.name, settings=settings)
    found = caught.value.diagnostics
    expected = expectations(case)
    assert expected, f"{case.name} says nothing of what it expects"
    assert len(found) == len(expected), "\n".join(map(str, found))
    for code, line, near in expected:
        matching = [d for d in found if d.code == code and (line is None or (d.span and d.span.start.line == line))]
        assert matching, f"no {code} at line {line}: " + "\n".join(map(str, found))
        if near:
            assert any(f"`{near}`" in (d.help or "") for d in matching), matching


def test_there_are_at_least_sixty_cases() -> None:
    assert len(CASES) >= 60
