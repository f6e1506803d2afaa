"""The width of a terminal is what `shutil` says."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from axon_compose.machine.terminal import columns


@pytest.mark.parametrize("asked", ["72", "0", "-3", "wide", " 9 ", None])
@pytest.mark.parametrize("wide", [51, 0, None])
def test_as_shutil(asked: str | None, wide: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if asked is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", asked)
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "__stdout__", file)
        if wide is not None:
            monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((wide, 24)))
        assert columns(80) == shutil.get_terminal_size((80, 24)).columns


@pytest.mark.parametrize("gone", [True, False], ids=["none", "closed"])
def test_no_standard_output(gone: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    file = (tmp_path / "out").open("w")
    file.close()
    monkeypatch.setattr(sys, "__stdout__", None if gone else file)
    assert columns(80) == shutil.get_terminal_size((80, 24)).columns == 80
