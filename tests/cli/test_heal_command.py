"""`heal`: the receipts, the page, JSON, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import axon_compose
from axon_compose.cli import main
from tests.helpers import described

SHORT = ("--batch", "2", "--length", "16", "--steps", "4", "--samples", "0", "--evaluations", "2")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An edited model, its source, and a text."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    more: dict[str, Any] = {"dims": {"hidden_size": 32, "vocab_size": 259}}
    for name, blocks in (("source", described()["blocks"]), ("edited", described()["blocks"] | {"a": ["ssm", "mlp"]})):
        axon_compose.save(axon_compose.load(described(**more, blocks=blocks)).build(), tmp_path / name)
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 100)
    return [str(tmp_path / name) for name in ("edited", "source", "text.txt", "out")]


def run(folders: list[str], *more: str) -> int:
    edited, source, text, out = folders
    return main(["heal", edited, "--teacher", source, "--data", text, "-o", out, *SHORT, *more])


def test_receipts_and_a_folder_with_a_page(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders) == 0
    said = capsys.readouterr()
    assert said.out.startswith("edited learns from source, ")
    assert "layers by themselves" in said.out
    assert "predictions" in said.out
    assert f"axon-compose receipt {folders[1]} {folders[3]}" in said.err
    out = Path(folders[3])
    assert (out / "healing.html").read_text().startswith("<!doctype html>")
    assert json.loads((out / "receipts.json").read_text())["before"]["divergence"] > 0
    assert run(folders) == 2
    assert "--force" in capsys.readouterr().err


def test_a_text_of_standard_input_is_as_that_of_a_file(
    folders: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(folders[2]).read_bytes()
    curves = []
    for data in (folders[2], "-"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert run([*folders[:2], data, folders[3]], "--json", "--force") == 0
        curves.append(json.loads(capsys.readouterr().out)["result"]["curve"])
    assert curves[0] == curves[1]


def test_json(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "--json", "--first", "0") == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert [stage for stage, _, _ in result["curve"]] == ["", "logits", "logits"]
    assert result["finished"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--first", "2"], "from 0 to 1"),
        (["--teacher-weight", "-1"], "from 0 to 1"),
        (["--temperature", "0"], "above 0"),
        (["--temperature", "inf"], "above 0"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_wrong_usage(folders: list[str], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(folders, *arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def rates(out: str) -> set[float]:
    lines = [json.loads(line) for path in Path(out).glob("metrics*.jsonl") for line in path.read_text().splitlines()]
    return {line["learning_rate"] for line in lines if line["kind"] == "step"}


def test_a_learning_rate_that_is_given_is_that_of_both_parts(folders: list[str]) -> None:
    assert run(folders, "--schedule", "constant", "--warmup", "0", "--learning-rate", "1e-5") == 0
    assert rates(folders[3]) == {1e-5}
    assert run(folders, "--schedule", "constant", "--warmup", "0", "--force") == 0
    low, high = sorted(rates(folders[3]))
    assert high == pytest.approx(10 * low, rel=0.1)


def test_sequences_that_do_not_show_the_change(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    components = described()["components"]
    components["swa"]["window_size"] = 64
    more: dict[str, Any] = {"dims": {"hidden_size": 32, "vocab_size": 259}, "components": components}
    model = axon_compose.load(described(**more)).build()
    model.update(axon_compose.load_model(folders[1]).parameters())
    axon_compose.save(model, tmp_path / "wider")
    folders = [str(tmp_path / "wider"), *folders[1:]]
    assert run(folders, "--length", "8") == 0
    said = capsys.readouterr()
    assert "warning[AX957]: sequences of 8 tokens do not show how far `swa` reaches" in said.err
    assert "--length 16" in said.err
    assert run(folders, "--length", "8", "--json", "--force") == 0
    assert "AX957" in {each["code"] for each in json.loads(capsys.readouterr().out)["diagnostics"]}


def test_a_pattern_that_names_nothing(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "--learn", "layers.*.mpl") == 2
    assert "did you mean `layers.*.mlp`?" in capsys.readouterr().err
