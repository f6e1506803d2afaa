"""axon-native as `make` gets it: built once, found again, and left out without a word where it cannot be built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))
import build_native as native  # noqa: E402  # a script beside the package


class Pip:
    """In the place of pip: knows what it was asked, and builds a wheel of no content, unless it fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(arguments[0])
        if arguments[0] == "wheel" and not self.fails:
            Path(arguments[arguments.index("--wheel-dir") + 1], "axon_native-0-any.whl").touch()
        return subprocess.CompletedProcess([], int(self.fails), "what the compiler says", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    """A machine that can build it, with sources, wheels and an environment of its own."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "kernels.cpp").write_text("int main() {}")
    found = Pip()
    replaced = {
        "SOURCES": sources,
        "KEPT": tmp_path / "kept",
        "STAMP": tmp_path / "stamp",
        "lacking": lambda: None,
        "_install_tools": lambda: None,
        "_fault": lambda: "",
        "_pip": found,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(native, name, value)
    return found


def test_it_is_built_once_and_found_again(pip: Pip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"]
    assert capsys.readouterr().out.count("\n") == 1
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"]
    (tmp_path / "stamp").unlink()  # a new environment
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install", "install"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("change", ["sources", "mlx", "nanobind", "processor"])
def test_it_is_built_again_for_another(pip: Pip, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert native.main([]) == 0
    if change == "sources":
        (tmp_path / "sources" / "kernels.cpp").write_text("int main() { return 1; }")
    elif change == "processor":
        monkeypatch.setattr(native, "_instructions", lambda: "others")
    else:
        versions = native.version
        monkeypatch.setattr(native, "version", lambda name: "99.0" if name == change else versions(name))
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"] * 2


def test_a_text_about_it_changes_nothing(pip: Pip, tmp_path: Path) -> None:
    before = native.key()
    (tmp_path / "sources" / "README.md").write_text("About it")
    assert native.key() == before


@pytest.mark.parametrize("lacks", ["PATH without a compiler", "a compiler of another language"])
def test_a_machine_that_cannot_build_it_goes_on_in_silence(
    lacks: str, pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(native, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(native, "_pip", pip)
    monkeypatch.setenv("PATH", str(tmp_path))
    if lacks != "PATH without a compiler":
        (tmp_path / "c++").write_text(f"#!{sys.executable}\nraise SystemExit(1)\n")
        (tmp_path / "c++").chmod(0o755)
    assert native.main([]) == 0
    assert capsys.readouterr() == ("", "")
    assert native.main(["--required"]) == 1
    assert capsys.readouterr().err.startswith("axon-native is left out: ")
    assert pip.asked == []


def test_what_could_not_be_built_is_tried_again_only_if_it_is_required(
    pip: Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.fails = True
    assert native.main([]) == 0
    message = capsys.readouterr().err
    assert "build.log" in message
    assert Path(message.split()[-1]).read_text() == "what the compiler says"
    assert native.main([]) == 0
    assert capsys.readouterr().err == ""
    assert pip.asked == ["wheel"]
    pip.fails = False
    assert native.main(["--required"]) == 0
    assert pip.asked == ["wheel", "wheel", "install"]
    assert not Path(message.split()[-1]).exists()


def test_one_that_mlx_does_not_take_is_removed(
    pip: Pip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "_fault", lambda: "ImportError: another nanobind")
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install", "uninstall"]
    assert not native.STAMP.exists()
    assert capsys.readouterr().err == ""
    assert native.main(["--required"]) == 1
    assert "another nanobind" in capsys.readouterr().err
