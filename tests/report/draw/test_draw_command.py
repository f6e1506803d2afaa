"""`draw` writes a whole file or none, and replaces nothing unless it is told to."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axon_compose.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<svg "), ("html", b"<!doctype html>")])
def test_the_name_tells_the_form(suffix: str, start: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "hybrid-demo", "-o", f"a.{suffix}"]) == 0
    data = (folder / f"a.{suffix}").read_bytes()
    assert data.startswith(start)
    assert capsys.readouterr().out.startswith(f"wrote a.{suffix}: hybrid-demo, ")
    assert [path.name for path in folder.iterdir()] == [f"a.{suffix}"]


def test_nothing_is_replaced_without_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "a.svg"
    target.write_text("mine")
    assert main(["draw", "hybrid-demo", "-o", "a.svg"]) == 2
    assert "error[AX507]: `a.svg` exists" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main(["draw", "hybrid-demo", "-o", "a.svg", "--force", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["result"] == {"file": "a.svg", "bytes": target.stat().st_size}


def test_a_file_that_appears_meanwhile_is_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import axon_compose.cli._draw as command

    drawn: Callable[..., bytes] = command._drawn

    def slowly(*arguments: Any) -> bytes:
        (folder / "a.svg").write_text("mine")
        return drawn(*arguments)

    monkeypatch.setattr(command, "_drawn", slowly)
    assert main(["draw", "hybrid-demo", "-o", "a.svg"]) == 2
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("a.svg", "mine")]


@pytest.mark.parametrize("target", ["a.pdf", "a"])
def test_other_forms_are_wrong_usage(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["draw", "hybrid-demo", "-o", target])
    assert ended.value.code == 2
    assert "ends in none of .svg, .html, .png" in capsys.readouterr().err


def test_a_bitmap_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "resvg_py":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["draw", "hybrid-demo", "-o", "a.png"]) == 2
    error = capsys.readouterr().err
    assert "error[AX506]" in error
    assert "pip install resvg-py" in error
    assert not list(folder.iterdir())


def test_a_bitmap(folder: Path) -> None:
    pytest.importorskip("resvg_py", reason="needs resvg-py (the extra `png`)")
    assert main(["draw", "hybrid-demo", "-o", "a.png"]) == 0
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
