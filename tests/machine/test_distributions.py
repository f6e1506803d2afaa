"""What is installed is told as `importlib.metadata` tells it, for every way in which it can be on the path."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from axon_compose.machine.distributions import Distribution, installed, normalized


def facts(found: Distribution) -> tuple[str, str, list[str], str]:
    return (
        found.field("Name"), found.field("Version"), found.fields("requires-dist"), found.text("entry_points.txt")
    )  # fmt: skip


def theirs(found: metadata.Distribution) -> tuple[str, str, list[str], str]:
    head = found.metadata
    needs = [" ".join(each.split()) for each in head.get_all("Requires-Dist") or []]
    return head["Name"], head["Version"], needs, found.read_text("entry_points.txt") or ""


def write(folder: Path, kind: str = "dist-info", name: str = "Axon_Acme", version: str = "1.5") -> Path:
    information = folder / ("EGG-INFO" if kind == "egg" else f"{name}-{version}.{kind}")
    information.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: mlx==1\n\nVersion: of the text\n"
    (information / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(text)
    (information / "entry_points.txt").write_text("[axon_compose]\nacme = acme\n")
    return information


def test_this_environment() -> None:
    assert sorted(map(facts, installed())) == sorted(map(theirs, metadata.distributions()))
    (ours,) = installed("axon.compose")
    assert ours.field("version") == metadata.version("axon-compose")
    assert next(installed("no-such-thing"), None) is None


@pytest.mark.parametrize("kind", ["dist-info", "egg-info", "egg", "archive"])
def test_forms(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ("axon_acme-1.5-py3.11.egg" if kind == "egg" else "site")
    information = write(place, "dist-info" if kind == "archive" else kind)
    if kind == "archive":
        place = tmp_path / "site.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for file in information.iterdir():
                archive.write(file, f"{information.name}/{file.name}")
    monkeypatch.syspath_prepend(str(place))
    (found,) = installed("axon-acme")
    assert facts(found) == ("Axon_Acme", "1.5", ["mlx==1"], "[axon_compose]\nacme = acme\n")
    assert found.text("RECORD") == ""


def test_the_path_has_an_order_and_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        write(tmp_path / version, version=version)
        monkeypatch.syspath_prepend(str(tmp_path / version))
    monkeypatch.syspath_prepend(str(tmp_path / "not there"))
    assert [found.field("Version") for found in installed("axon-acme")] == ["2.0", "1.0"]
    monkeypatch.chdir(tmp_path / "1.0")
    monkeypatch.syspath_prepend("")
    assert next(installed("axon-acme")).field("Version") == "1.0"


def test_finders_of_others_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        """As of an application that carries its packages along."""

        @staticmethod
        def find_spec(*_: object) -> None:
            return None

        @staticmethod
        def find_distributions(context: metadata.DistributionFinder.Context) -> list[metadata.Distribution]:
            return [metadata.PathDistribution(write(tmp_path, name="hidden"))] if context.name == "hidden" else []

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert PathFinder in sys.meta_path
    assert [found.field("Name") for found in installed("hidden")] == ["hidden"]


@pytest.mark.parametrize("name", ["Axon_Acme", "axon-acme", "AXON.-_acme"])
def test_names_as_indexes_compare_them(name: str) -> None:
    assert normalized(name) == "axon-acme"
