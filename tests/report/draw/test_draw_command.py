"""`draw` writes a whole file or none, and replaces nothing unless it is told to."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axon_compose import load
from axon_compose.cli import main
from axon_compose.diagnostics import Refusal
from axon_compose.machine import libraries
from axon_compose.report.draw import page


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


@pytest.mark.parametrize(
    ("missing", "command", "message"),
    [
        ("resvg_py", ["draw", "hybrid-demo", "-o", "a.png"], "a PNG needs resvg-py, which is not installed"),
        (
            "matplotlib",
            ["draw", "hybrid-demo", "-o", "a.html"],
            "a page with charts needs matplotlib, which is not installed",
        ),
        (
            "matplotlib",
            ["compare", "hybrid-demo", "bit-axon", "-o", "a.html"],
            "a page with charts needs matplotlib, which is not installed",
        ),
    ],
)
def test_a_missing_library_is_named_before_anything_is_done(
    missing: str,
    command: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without(missing, monkeypatch)
    assert main(command) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert f"error[AX506]: {message}" in error
    assert f"`pip install {missing.replace('_py', '-py')}`" in error
    assert not list(folder.iterdir())


def test_the_font_of_a_bitmap_may_be_missing_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("resvg_py", reason="needs resvg-py (the extra `png`)")
    without("matplotlib", monkeypatch)
    assert main(["draw", "hybrid-demo", "-o", "a.png"]) == 2
    assert "the font of a PNG needs matplotlib" in capsys.readouterr().err


def test_pictures_need_no_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stack as SVG, in characters and in a notebook, and the table of a comparison."""
    without("matplotlib", monkeypatch)
    assert main(["draw", "hybrid-demo", "-o", "a.svg"]) == 0
    assert main(["show", "hybrid-demo"]) == 0
    assert main(["compare", "hybrid-demo", "llama-small"]) == 0
    assert load("hybrid-demo")._repr_html_()
    with pytest.raises(Refusal, match="a page with charts needs matplotlib"):
        page(load("hybrid-demo").plan())


def without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a library be missing."""
    real = importlib.util.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == module else real(name))


def test_a_bitmap(folder: Path) -> None:
    pytest.importorskip("resvg_py", reason="needs resvg-py (the extra `png`)")
    assert main(["draw", "hybrid-demo", "-o", "a.png"]) == 0
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
