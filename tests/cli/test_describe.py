"""The commands that describe: what they print where, and the code that they end with."""

from __future__ import annotations

import gc
import io
import json
from pathlib import Path
from typing import Any

import pytest

from axon_compose.architecture import load
from axon_compose.cli import main

BAD = "version: 1\ndims: {hidden_size: 8, vocab_size: 8}\ncomponents: {m: {type: mpl}}\nblocks: {a: [m]}\nstack: a\n"
GOOD = BAD.replace("mpl", "mlp, intermediate_size: 8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_good_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "validate", "good.yaml") == (0, "good.yaml: ok\n", "")


def test_nothing_looks_for_garbage_while_a_file_is_loaded(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it makes stays."""
    collected: list[str] = []

    def loaded(*arguments: Any, **options: Any) -> Any:
        gc.callbacks.append(note := lambda phase, _: collected.append(phase))
        try:
            return load(*arguments, **options)
        finally:
            gc.callbacks.remove(note)

    monkeypatch.setattr("axon_compose.cli._source.load", loaded)
    before = gc.get_threshold()
    try:
        gc.set_threshold(10)
        assert main(["validate", "good.yaml"]) == 0
    finally:
        gc.set_threshold(*before)
    assert not collected
    assert gc.isenabled()


def test_faults_are_the_result_of_validate(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "validate", "bad.yaml", "good.yaml")
    assert (code, err) == (1, "")
    assert out.startswith("error[AX202]: unknown component `mpl`\n --> bad.yaml:3:24\n")


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("concise", "bad.yaml:3:24: error[AX202]: unknown component `mpl`"),
        ("github", "::error file=bad.yaml,line=3,col=24"),
        ("json", "[\n  {\n"),
    ],
)
def test_forms(files: Path, capsys: pytest.CaptureFixture[str], form: str, start: str) -> None:
    code, out, _ = run(capsys, "validate", "bad.yaml", "--format", form)
    assert code == 1
    assert out.startswith(start)


def test_the_envelope_has_a_version(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "validate", "bad.yaml", "--json")
    answer = json.loads(out)
    assert code == 1
    assert (answer["schema"], answer["command"], answer["ok"]) == (1, "validate", False)
    assert [d["code"] for d in answer["diagnostics"]] == ["AX202"]
    code, out, _ = run(capsys, "show", "good.yaml", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["result"]["parameters"] == 8 * 8 + 3 * 64 + 2 * 8


def test_other_commands_print_faults_beside_their_result(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "show", "bad.yaml")
    assert (code, out) == (1, "")
    assert "AX202" in err
    code, out, err = run(capsys, "show", "bad.yaml", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["ok"] is False


def test_standard_input(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(BAD.encode())

    monkeypatch.setattr("sys.stdin", Stdin())
    code, out, _ = run(capsys, "validate", "-")
    assert code == 1
    assert " --> <stdin>:3:24" in out


def test_a_file_that_cannot_be_read(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "validate", "missing.yaml")
    assert (code, out) == (2, "")
    assert "`missing.yaml`: No such file or directory" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("argv", [[], ["bild"], ["show"], ["validate", "good.yaml", "--format", "xml"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def test_settings(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "good.yaml", "--set", "stack=a*7")
    assert code == 0
    assert "7 layers" in out


def test_stages(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "show", "good.yaml", "--stage", "document")
    assert json.loads(out)["blocks"] == {"a": ["m"]}
    _, out, _ = run(capsys, "show", "good.yaml", "--stage", "plan")
    assert [layer["block"] for layer in json.loads(out)["layers"]] == ["a"]


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", "ax007")
    assert code == 0
    assert "duplicate key" in out
    code, out, err = run(capsys, "explain", "AX999")
    assert (code, out) == (2, "")
    assert "AX999" in err


def test_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plugins")
    assert code == 0
    assert out.splitlines()[1].startswith("core ")
    _, out, _ = run(capsys, "plugins", "--json")
    assert "core/attention" in json.loads(out)["result"][0]["components"]


def test_colour(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run(capsys, "validate", "bad.yaml")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run(capsys, "validate", "bad.yaml")[1]
