"""`compare` as a user meets it: the table, the page, faults of several files, and typing mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axon_compose import compare, load
from axon_compose.cli import main
from axon_compose.machine.units import count


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, fault in (("one", "num_head: 4"), ("two", "num_heads: four")):
        text = "version: 1\nname: NAME\ndims: {hidden_size: 64, vocab_size: 64}\nblocks: {b: [attn]}\nstack: b\n"
        text += f"components: {{attn: {{type: attention, {fault}}}}}\n"
        Path(f"{name}.yaml").write_text(text)
    return tmp_path


def test_options_are_those_of_cost(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--context", "100,2000", "--batch", "2", "--quantize", "4", "--memory", "1MB", "--bandwidth", "100"]
    assert main(["compare", "llama-small", "hybrid-demo", *options, "--sort", "parameters", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    found = compare(
        ["llama-small", "hybrid-demo"],
        context=[100, 2000], batch=2, quantize=4, memory=10**6, bandwidth=1e11, sort="parameters",
    )  # fmt: skip
    assert result == json.loads(json.dumps(found.to_dict()))
    assert [row["name"] for row in result["rows"]] == ["hybrid-demo", "llama-small"]
    assert main(["compare", "llama-small", "hybrid-demo", *options, "--set", "dims.hidden_size=128"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 models in 4 bits and bfloat16, 2 sequences"
    assert lines[3].split() == ["model", "parameters", "active", "weights", "100", "2,000", "2,000", "FLOPs", "FLOPs",
                                "1.00", "MB", "context", "at", "most"]  # fmt: skip
    smaller = count(load("llama-small", settings=["dims.hidden_size=128"]).cost().parameters)
    assert lines[4].split()[:2] == ["llama-small", smaller]


def test_what_cannot_be_quantised_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of 40 and 72, which no group of 64 divides."""
    components = "{attn: {type: attention, num_heads: 4}, mlp: {type: mlp, intermediate_size: 72}}"
    sizes = "version: 1\nname: narrow\ndims: {hidden_size: 40, vocab_size: 100}\n"
    Path("narrow.yaml").write_text(f"{sizes}components: {components}\nblocks: {{layer: [attn, mlp]}}\nstack: layer*2\n")
    assert main(["cost", "narrow.yaml", "--quantize", "4"]) == 0
    head, *_, last = capsys.readouterr().out.splitlines()
    assert head.endswith(" in bfloat16")
    assert last == "  quantised: nothing, since no matrix has rows of a multiple of 64"
    assert main(["compare", "narrow.yaml", "llama-small", "--quantize", "4"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "  quantised: nothing of `narrow`, since no matrix has rows of a multiple of 64"


def test_faults_of_all_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "one.yaml", "llama-small", "two.yaml", "missing.yaml"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    for part in ("one.yaml:6", "two.yaml:6", "did you mean `num_heads`?", "`missing.yaml`: No such file"):
        assert part in told.err
    assert main(["compare", "one.yaml", "two.yaml", "--json"]) == 1
    codes = [fault["code"] for fault in json.loads(capsys.readouterr().out)["diagnostics"]]
    assert codes == ["AX101", "AX102"]
    assert main(["compare", "llama-small", "missing.yaml"]) == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--sort", "paramters"], "argument --sort: there is no column `paramters`; did you mean `parameters`?"),
        (["--sort", "longest"], "argument --sort: there is no column `longest`"),
        (["--rounds", "2"], "argument --rounds: it says how to measure, and needs --measure"),
        (["-o", "a.png"], "'a.png' does not end in .html"),
        (["--measure", "--rounds", "0"], "'0' is not a number from 1"),
    ],
)
def test_wrong_usage(wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", "llama-small", *wrong])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_files_with_one_name_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Path(f"{name}.yaml").write_text("extends: llama-small\n")
    assert main(["compare", "a.yaml", "b.yaml", "llama-small", "llama-small"]) == 0
    names = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()[4:8]]
    assert names == ["llama-small (a.yaml)", "llama-small (b.yaml)", "llama-small", "llama-small (2)"]


def test_a_folder_is_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    fixture = Path(__file__).parents[2] / "families" / "fixtures" / "qwen3_moe"
    assert main(["compare", str(fixture), "llama-small"]) == 0
    assert "qwen3_moe          135K" in capsys.readouterr().out


def test_the_page_is_whole_and_replaces_nothing_unasked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.html").write_text("mine")
    assert main(["compare", "llama-small", "-o", "a.html"]) == 2
    assert "error[AX507]: `a.html` exists" in capsys.readouterr().err
    assert Path("a.html").read_text() == "mine"
    before = set(folder.iterdir())
    assert main(["compare", "llama-small", "hybrid-demo", "-o", "a.html", "--force", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert (result["file"], result["bytes"]) == ("a.html", Path("a.html").stat().st_size)
    assert Path("a.html").read_text("utf-8").startswith("<!doctype html>")
    assert set(folder.iterdir()) == before


def test_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--measure", "--prompt", "8", "--steps", "2", "--rounds", "1", "--dtype", "float32", "--context", "16"]
    assert main(["compare", "hybrid-demo", "deepseek_v3", *options, "--sort", "decode-speed"]) == 0
    text = capsys.readouterr().out
    assert "measured on the " in text
    assert "prompts of 8 tokens, 2 decoded; median of 1 round" in text
    assert "not measured: deepseek_v3: `deepseek_v3` needs 2.7" in text
