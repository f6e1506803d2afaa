"""The tests use what writes the pages."""

import sys
from pathlib import Path

import pytest

from tests import forks

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))


@pytest.fixture
def forked_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands on pages need not import everything again."""
    monkeypatch.setattr("refresh.PROGRAMS", forks.programs())
