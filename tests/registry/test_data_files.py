"""Shipped files are found in a wheel and in a checkout; every first-party plugin is registered."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from axon_compose.registry import _data_files

ROOT = Path(__file__).parents[2]


def test_checkout() -> None:
    assert _data_files.data_dir("architectures") == ROOT / "architectures"
    assert _data_files.data_dir("schemas") == ROOT / "schemas"


def test_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "axon_compose"
    (package / "_data" / "schemas").mkdir(parents=True)
    monkeypatch.setattr(_data_files, "__file__", str(package / "registry" / "_data_files.py"))
    assert _data_files.data_dir("schemas") == package.resolve() / "_data" / "schemas"
    assert _data_files.data_dir("architectures") == tmp_path.resolve() / "architectures"


def test_every_first_party_plugin_has_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    registered = set(project["entry-points"]["axon_compose"].values())
    assert registered == {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
